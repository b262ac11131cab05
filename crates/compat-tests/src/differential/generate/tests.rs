//! Tests of the templates and of what is made of them.

use super::*;

fn generator(seed: u64) -> Generator {
    Generator::new(seed, 1_000_000_000, vec![b"payload".to_vec()])
}

#[test]
fn a_seed_gives_one_sequence() {
    assert_eq!(generator(7).sequence(), generator(7).sequence());
    assert_ne!(generator(7).sequence(), generator(8).sequence());
}

fn is_choice(arg: &[u8]) -> bool {
    arg.starts_with(b"(") && arg.ends_with(b")")
}

#[test]
fn every_template_can_be_filled_in() {
    let mut generator = generator(1);
    for (_, template) in templates() {
        for _ in 0..50 {
            let command = generator.expand(template.trim_start_matches('!'));
            // A bracket that is not closed opens a bound that excludes its end.
            let rest = command.iter().any(|arg| arg.starts_with(b"<") || is_choice(arg));
            assert!(!command.is_empty() && !rest, "{template}: {command:?}");
        }
    }
}

#[test]
fn every_command_turns_up() {
    let mut generator = generator(1);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        for atom in generator.sequence() {
            if let Action::Send(command) = atom.action {
                seen.insert(command[0].to_ascii_uppercase());
            }
        }
    }
    for (_, template) in templates() {
        let name = template.trim_start_matches('!').split(' ').next().unwrap_or_default();
        if !name.starts_with('<') {
            assert!(seen.contains(&name.to_ascii_uppercase().into_bytes()), "{name}");
        }
    }
}
