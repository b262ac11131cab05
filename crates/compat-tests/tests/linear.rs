//! Clients read and write while nodes are paused for longer than a lease, stopped, cut off, wiped, slow,
//! and the process is killed: what they saw is linearizable for each key, and nothing acknowledged is
//! lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use compat_tests::admin::{info_number, leading_node};
use compat_tests::linear::{Operation, check, run_client};
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::Client;

const CLIENTS: usize = 8;
const KEYS: usize = 48;
/// Longer than a lease (1 s) by far.
const PAUSE: Duration = Duration::from_millis(2_500);
/// Operations that a fault has to let through once it is over, and while it lasts.
const PROGRESS: u64 = 1_000;
const WITHIN: Duration = Duration::from_secs(40);
/// Log lines of faults that are injected on purpose.
const EXPECTED: [&str; 8] = [
    "log failed, node stops",
    "flush failed, node stops",
    "damaged",
    "abandoned",
    "changed a byte",
    "log read failed",
    "replicas cannot be kept",
    "compaction of rows failed",
];

fn admin(client: &mut Client, line: &str) {
    let reply = client.line(line).expect("an answer");
    assert!(!reply.is_error(), "{line}: {reply:?}");
}

struct Run<'a> {
    server: &'a mut Server,
    done: &'a AtomicU64,
}

impl Run<'_> {
    fn control(&self) -> Client {
        self.server.client().expect("a connection")
    }

    fn goes_on(&self, what: &str) {
        let from = self.done.load(Ordering::Relaxed);
        wait_until(what, WITHIN, || Ok(self.done.load(Ordering::Relaxed) >= from + PROGRESS))
            .expect("operations go on");
    }

    /// All nodes run, and each has a replica with its rows.
    fn is_whole(&self) {
        let mut control = self.control();
        wait_until("the cluster is whole", WITHIN, || {
            let mut number = |name| info_number(&mut control, "consensus", name);
            let replicas = number("replicas")? - number("log_replicas")?;
            Ok(replicas == 3 * number("leaders")? && number("replicas_installing")? == 0)
        })
        .expect("whole again");
    }

    fn fault_on_leader(&self, begin: &str, end: &str, lasts: Duration) {
        let mut control = self.control();
        let node = leading_node(&mut control).expect("a leader");
        let line = |text: &str| text.replace("LEADER", &node);
        admin(&mut control, &line(begin));
        // The fault's length is what it is about.
        std::thread::sleep(lasts);
        self.goes_on(begin);
        admin(&mut control, &line(end));
        self.goes_on(end);
    }

    fn all_faults(&mut self) {
        let moment = Duration::from_millis(500);
        self.goes_on("a load");
        for _ in 0..2 {
            self.fault_on_leader("ADMIN FAULT PAUSE LEADER", "ADMIN FAULT RESUME LEADER", PAUSE);
            self.fault_on_leader("ADMIN FAULT STOP LEADER", "ADMIN FAULT START LEADER", moment);
        }
        self.fault_on_leader(
            "ADMIN FAULT DISK SLOW LEADER 50",
            "ADMIN FAULT DISK OK LEADER",
            moment,
        );
        for cut in [(1, 2), (2, 3), (1, 3)] {
            let line = format!("ADMIN FAULT PARTITION {} {}", cut.0, cut.1);
            self.fault_on_leader(&line, "ADMIN FAULT HEAL", PAUSE);
        }
        self.is_whole();
        self.fault_on_leader("ADMIN FAULT DISK ERROR LEADER", "ADMIN FAULT DISK OK LEADER", moment);
        let mut control = self.control();
        for node in 1..=3 {
            // The one that stopped.
            let _ = control.line(&format!("ADMIN FAULT START {node}"));
        }
        self.is_whole();
        self.fault_on_leader("ADMIN FAULT WIPE LEADER", "ADMIN FAULT START LEADER", moment);
        self.is_whole();
        for _ in 0..2 {
            self.server.kill().expect("kill");
            self.server.launch().expect("launch");
            self.goes_on("after kill -9");
        }
        self.is_whole();
        let mut control = self.control();
        let node = leading_node(&mut control).expect("a leader");
        admin(&mut control, &format!("ADMIN FAULT STOP {node}"));
        for at in [11_111, 44_444, 99_999] {
            admin(&mut control, &format!("ADMIN FAULT CORRUPT LOG {node} {at}"));
        }
        admin(&mut control, &format!("ADMIN FAULT START {node}"));
        self.is_whole();
        self.goes_on("a damaged log");
    }
}

#[test]
fn what_clients_see_through_all_faults_is_linearizable() {
    let options = Options {
        faults: true,
        extra: ["--databases", "1"].map(str::to_owned).to_vec(),
        expected_log: EXPECTED.to_vec(),
        ..Options::evenkeel()
    };
    if options.is_redis() {
        return;
    }
    let mut server = Server::start(options).expect("start");
    let (port, origin) = (server.port(), Instant::now());
    let (next, done, stop) = (AtomicU64::new(1), AtomicU64::new(0), AtomicBool::new(false));
    let history: Vec<Operation> = std::thread::scope(|scope| {
        let client = |seed: u64| {
            let (next, stop, done) = (&next, &stop, &done);
            // In short turns, so that progress is seen.
            move || {
                let mut history = Vec::new();
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let over = AtomicBool::new(false);
                    let part = std::thread::scope(|scope| {
                        let run = scope.spawn(|| {
                            run_client(port, (KEYS, seed << 32 | turn), origin, next, &over)
                        });
                        std::thread::sleep(Duration::from_millis(100));
                        over.store(true, Ordering::Relaxed);
                        run.join().expect("a client")
                    });
                    let finished = part.iter().filter(|op| op.returned.is_some()).count();
                    done.fetch_add(finished as u64, Ordering::Relaxed);
                    history.extend(part);
                }
                history
            }
        };
        let clients: Vec<_> = (1..=CLIENTS as u64).map(|seed| scope.spawn(client(seed))).collect();
        let faults = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Run { server: &mut server, done: &done }.all_faults();
        }));
        stop.store(true, Ordering::Relaxed);
        let histories = clients.into_iter().map(|client| client.join().expect("a client"));
        let history = histories.flatten().collect();
        if let Err(panic) = faults {
            println!("{}", server.log_text());
            std::panic::resume_unwind(panic);
        }
        history
    });
    let unknown = history.iter().filter(|operation| operation.returned.is_none()).count();
    let (took, started) = (origin.elapsed(), Instant::now());
    let checked = check(&history);
    println!(
        "{} operations in {took:?}, {unknown} of unknown outcome, checked in {:?}: {checked:?}",
        history.len(),
        started.elapsed()
    );
    assert_eq!(checked, Ok(()));
    assert!(history.len() > 20_000, "too little to mean anything");
    server.stop().expect("stop");
}
