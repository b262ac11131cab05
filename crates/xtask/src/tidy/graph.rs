//! Who may depend on whom. A crate that is not listed may not exist: a new one is first given its
//! place here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Each crate of the workspace and those of the workspace it may name.
const ALLOWED: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("paxos", &[]),
    ("commands", &["wire"]),
    ("memds", &["wire"]),
    ("scripts", &["wire", "commands"]),
    ("storage", &["wire", "paxos", "commands", "scripts"]),
    ("router", &["wire", "commands", "memds"]),
    ("control", &["wire", "memds"]),
    ("server", &["wire", "paxos", "commands", "scripts", "memds", "storage", "router", "control"]),
    ("sim", &["wire", "paxos", "commands", "scripts", "memds", "storage", "router", "control"]),
    ("benches", &["wire", "paxos", "commands", "scripts", "memds", "storage", "router", "control"]),
    ("compat-tests", &[]),
    ("xtask", &[]),
];

/// The storage engine, and the one crate that may use it.
const ENGINE: (&str, &str) = ("fjall", "storage");

/// What `cargo metadata` says of the workspace's own packages.
pub(crate) fn metadata(root: &Path) -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("read cargo metadata")
}

/// Complaints about the graph. Dependencies of tests and builds count like others.
pub(crate) fn check(metadata: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    if packages.is_empty() {
        complaints.push("cargo metadata lists no packages".to_owned());
    }
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(listed, _)| *listed == name) else {
            complaints.push(format!("crate {name} has no place in the floor plan"));
            continue;
        };
        let dependencies =
            package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
        for dependency in dependencies.iter().filter_map(|found| found["name"].as_str()) {
            let ours = ALLOWED.iter().any(|(listed, _)| *listed == dependency);
            if ours && !allowed.contains(&dependency) {
                complaints.push(format!("{name} may not depend on {dependency}"));
            }
            if dependency == ENGINE.0 && name != ENGINE.1 {
                complaints
                    .push(format!("{name} may not name {}: only {} does", ENGINE.0, ENGINE.1));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Value {
        let dependencies: Vec<Value> =
            dependencies.iter().map(|name| json!({"name": name})).collect();
        json!({"packages": [{"name": name, "dependencies": dependencies}]})
    }

    #[test]
    fn forbidden_edges_are_found() {
        assert!(check(&package("router", &["wire", "memds", "tokio"])).is_empty());
        assert_eq!(check(&package("router", &["storage"])).len(), 1);
        assert_eq!(check(&package("storage", &["router", "memds"])).len(), 2);
        assert_eq!(check(&package("wire", &["commands"])).len(), 1);
        assert_eq!(check(&package("compat-tests", &["wire"])).len(), 1);
        assert_eq!(check(&package("server", &["fjall"])).len(), 1);
        assert_eq!(check(&package("common", &[])).len(), 1);
        assert_eq!(check(&json!({})).len(), 1);
    }

    #[test]
    fn the_plan_has_no_cycle() {
        for (at, (name, allowed)) in ALLOWED.iter().enumerate() {
            for dependency in *allowed {
                let place = ALLOWED.iter().position(|(listed, _)| listed == dependency);
                assert!(
                    place.is_some_and(|place| place < at),
                    "{name} names {dependency} above it"
                );
            }
        }
    }
}
