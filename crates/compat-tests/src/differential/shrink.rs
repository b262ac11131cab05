//! Reduces a diverging sequence to the atoms that matter (delta debugging), and prints it.
//!
//! First what follows the divergence is cut; then ever smaller parts are left out as long as the
//! servers still diverge, on empty servers each time; at last commands are sent one by one instead of
//! joined, if that still shows it: the script is then plain to replay by hand.

use anyhow::Result;

use super::run::{Divergence, Runner};
use super::{Action, Atom, script_line};

/// A bound on the runs spent on one sequence.
const RUNS_MAX: usize = 600;

/// A reduced sequence and what it shows.
#[derive(Debug)]
pub struct Finding {
    /// The atoms that are left.
    pub atoms: Vec<Atom>,
    /// Their divergence.
    pub divergence: Divergence,
    /// Whether the whole sequence diverged a second time. If not, the divergence hangs on timing.
    pub repeatable: bool,
}

/// Reduces a sequence that diverged.
pub fn shrink(runner: &mut Runner, atoms: &[Atom], divergence: Divergence) -> Result<Finding> {
    let mut finding = Finding { atoms: atoms.to_vec(), divergence, repeatable: true };
    let cut = atoms[..atoms.len().min(finding.divergence.atom + 1)].to_vec();
    if !attempt(runner, cut, &mut finding)? {
        finding.repeatable = attempt(runner, atoms.to_vec(), &mut finding)?;
        if !finding.repeatable {
            return Ok(finding);
        }
    }
    let mut runs = 0;
    let mut part = finding.atoms.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut smaller = false;
        while at < finding.atoms.len() && runs < RUNS_MAX {
            let end = (at + part).min(finding.atoms.len());
            let mut rest = finding.atoms.clone();
            rest.drain(at..end);
            runs += 1;
            if !rest.is_empty() && attempt(runner, rest, &mut finding)? {
                smaller = true;
            } else {
                at = end;
            }
        }
        if part == 1 && !smaller || runs >= RUNS_MAX {
            break;
        }
        part = if smaller { part } else { part.div_ceil(2) };
        part = part.min(finding.atoms.len()).max(1);
    }
    let mut single = finding.atoms.clone();
    single.iter_mut().for_each(|atom| atom.joined = false);
    attempt(runner, single, &mut finding)?;
    Ok(finding)
}

/// Whether these atoms diverge too; then they are the finding.
fn attempt(runner: &mut Runner, atoms: Vec<Atom>, finding: &mut Finding) -> Result<bool> {
    match runner.run(&atoms)? {
        Some(divergence) => {
            finding.atoms = atoms;
            finding.divergence = divergence;
            Ok(true)
        }
        None => Ok(false),
    }
}

impl Finding {
    /// A script for redis-cli, one connection after the other, and what the servers said.
    pub fn script(&self, port: u16) -> String {
        let mut text = format!(
            "{}\n# Redis:  {}\n# target: {}\n",
            self.divergence.command, self.divergence.reference, self.divergence.target
        );
        if !self.repeatable {
            text.push_str("# seen once only: it hangs on timing\n");
        }
        text.push_str(&format!("redis-cli -p {port} FLUSHALL\n"));
        let mut last = None;
        for atom in &self.atoms {
            if last != Some(atom.connection) {
                let end = if last.is_some() { "EOF\n" } else { "" };
                let protocol = if atom.connection == 1 { "-3 " } else { "" };
                text.push_str(&format!("{end}redis-cli {protocol}-p {port} <<'EOF'\n"));
                last = Some(atom.connection);
            }
            let line = match &atom.action {
                Action::Send(command) => script_line(command),
                Action::Expire(command) => format!("{}\n# wait 12 ms", script_line(command)),
                Action::ScanAll(options) => format!("# SCAN to its end: {}", script_line(options)),
                Action::RandomKey => "RANDOMKEY".to_owned(),
            };
            let joined = if atom.joined { "   # sent with the line before" } else { "" };
            text.push_str(&format!("{line}{joined}\n"));
        }
        text + "EOF\n"
    }
}
