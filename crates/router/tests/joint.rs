//! Writes of several connections, made together: nobody's fate is another's.
//!
//! All runs on one thread, so that connections that were sent to before anybody was served are ready at
//! once. All keys have one hash tag, and so lie in one place.

mod fake;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use fake::client::Client;
use fake::{Gates, Running, Scripted, start};

const MOMENT: Duration = Duration::from_millis(50);
const CLIENTS: usize = 10;

/// Clients of a router that has seen that they write at once.
async fn clients(running: &Running) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(running.port).await);
    }
    for _ in 0..10 {
        send(&mut clients, |_| vec!["SET {t} 0".to_owned()]).await;
        for client in &mut clients {
            assert_eq!(client.replies(1).await, ["OK"]);
        }
    }
    assert!(running.fake.joint_calls.swap(0, SeqCst) > 0);
    running.fake.take_log();
    clients
}

/// Has each send its lines, before any of them is answered.
async fn send(clients: &mut [Client], lines: impl Fn(usize) -> Vec<String>) {
    for (nth, client) in clients.iter_mut().enumerate() {
        let lines = lines(nth);
        client.send_lines(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

#[tokio::test]
async fn writes_of_connections_that_are_ready_are_made_together() {
    let running = start(&[], |_| {}).await;
    let mut clients = clients(&running).await;
    for round in 1..=20 {
        send(&mut clients, |nth| {
            vec![format!("RPUSH {{t}}l {nth}"), format!("SET {{t}}own{nth} {round}")]
        })
        .await;
        for client in &mut clients {
            let replies = client.replies(2).await;
            assert!(replies[0].parse::<usize>().is_ok_and(|length| length <= round * CLIENTS));
            assert_eq!(replies[1], "OK");
        }
    }
    let joint = running.fake.joint_calls.load(SeqCst);
    assert!(joint > 20 * CLIENTS as u64, "{joint} of {} calls", 2 * 20 * CLIENTS);
    let all = clients[0].run("LRANGE {t}l 0 -1").await;
    for nth in 0..CLIENTS {
        let mut pushed = all.trim_matches(['[', ']']).split(' ');
        assert_eq!(pushed.by_ref().filter(|item| *item == nth.to_string()).count(), 20);
    }
}

#[tokio::test]
async fn a_pipeline_that_others_are_made_with_keeps_its_order() {
    let running = start(&[], |_| {}).await;
    let mut clients = clients(&running).await;
    for round in 0..20 {
        let lines = |nth| {
            let key = format!("{{t}}{nth}");
            let get = format!("GET {key}");
            vec![
                format!("SET {key} {round}"),
                get.clone(),
                "PING".into(),
                format!("INCR {key}"),
                get,
            ]
        };
        send(&mut clients, lines).await;
        for client in &mut clients {
            let (old, new) = (round.to_string(), (round + 1).to_string());
            assert_eq!(client.replies(5).await, ["OK", &old, "PONG", &new, &new]);
        }
    }
    assert!(running.fake.joint_calls.load(SeqCst) > 0);
}

#[tokio::test]
async fn who_meets_an_obstacle_meets_it_alone() {
    let running = start(&[], |_| {}).await;
    let mut clients = clients(&running).await;
    use Scripted::{Busy, Evaluated, Later, NotHere, NotYet};
    let long = Duration::from_secs(1);
    for obstacle in [NotYet, NotHere, Later, Busy(long)] {
        running.fake.forget_script();
        running.fake.script([Evaluated, Evaluated, obstacle.clone()]);
        let joint = running.fake.joint_calls.load(SeqCst);
        send(&mut clients, |nth| vec![format!("INCR {{t}}{nth}")]).await;
        let mut last = None;
        for client in &mut clients {
            // The third waits, a second if it is told so, and all others are answered.
            match tokio::time::timeout(long / 2, client.reply()).await {
                Ok(reply) => assert!(reply.is_some()),
                Err(_) => assert!(last.replace(client).is_none(), "{obstacle:?}: several wait"),
            }
        }
        assert!(running.fake.joint_calls.load(SeqCst) > joint, "{obstacle:?}");
        if let Some(last) = last {
            assert_eq!(obstacle_wait(&obstacle), Some(long));
            assert!(last.reply().await.is_some());
        }
    }
    assert_eq!(clients[0].run("MGET {t}0 {t}1 {t}2 {t}9").await, "[4 4 4 4]", "each was done once");
}

fn obstacle_wait(obstacle: &Scripted) -> Option<Duration> {
    match obstacle {
        Scripted::Busy(wait) => Some(*wait),
        _ => None,
    }
}

#[tokio::test]
async fn nobody_is_answered_before_the_gate_and_what_was_lost_is_made_again() {
    let running = start(&[], |_| {}).await;
    let mut clients = clients(&running).await;
    running.fake.set_gates(Gates::Held);
    send(&mut clients, |nth| vec![format!("SET {{t}}{nth} 1"), format!("INCR {{t}}{nth}")]).await;
    running.fake.until_logged(2 * CLIENTS).await;
    for client in &mut clients {
        assert!(client.is_silent_for(MOMENT / 10).await);
    }
    assert!(running.fake.joint_calls.load(SeqCst) > 0);
    running.fake.take_log();
    running.fake.set_gates(Gates::Lost);
    running.fake.until_logged(2 * CLIENTS).await;
    assert!(clients[0].is_silent_for(MOMENT).await, "it is lost again and again");
    running.fake.set_gates(Gates::Open);
    for client in &mut clients {
        assert_eq!(client.replies(2).await, ["OK", "2"]);
    }
}

#[tokio::test]
async fn what_has_nothing_to_wait_for_does_not_wait_with_others() {
    let running = start(&[], |_| {}).await;
    let mut clients = clients(&running).await;
    assert_eq!(clients[0].run("SET {t}text t").await, "OK");
    running.fake.set_gates(Gates::Held);
    send(&mut clients, |nth| {
        vec![if nth % 2 == 0 { "INCR {t}text" } else { "INCR {t}n" }.to_owned()]
    })
    .await;
    for client in clients.iter_mut().step_by(2) {
        assert_eq!(client.replies(1).await, ["ERR value is not an integer or out of range"]);
    }
    assert!(clients[1].is_silent_for(MOMENT).await);
    running.fake.set_gates(Gates::Open);
    for client in clients.iter_mut().skip(1).step_by(2) {
        assert!(client.replies(1).await[0].parse::<u64>().is_ok());
    }
    assert!(running.fake.joint_calls.load(SeqCst) > 0);
}

#[tokio::test]
async fn the_end_of_one_connection_is_not_that_of_others() {
    let running = start(&[], |_| {}).await;
    let mut clients = clients(&running).await;
    let mut operator = Client::connect(running.port).await;
    let mut ids = Vec::new();
    for client in &mut clients {
        ids.push(client.run("CLIENT ID").await);
    }
    running.fake.set_gates(Gates::Held);
    send(&mut clients, |nth| vec![format!("SET {{t}}{nth} 1")]).await;
    running.fake.until_logged(CLIENTS).await;
    // The first that was served leads.
    for id in ids.iter().take(CLIENTS / 2) {
        assert_eq!(operator.run(&format!("CLIENT KILL ID {id}")).await, "1");
    }
    running.fake.set_gates(Gates::Open);
    for (nth, client) in clients.iter_mut().enumerate() {
        match nth < CLIENTS / 2 {
            true => assert!(client.reply().await.is_none(), "{nth} was killed"),
            false => assert_eq!(client.replies(1).await, ["OK"], "{nth}"),
        }
    }
    assert!(running.fake.joint_calls.load(SeqCst) > 0);
}

#[tokio::test]
async fn what_waited_for_company_when_a_pause_began_is_held_back() {
    let running = start(&[], |_| {}).await;
    let mut clients = clients(&running).await;
    let mut operator = Client::connect(running.port).await;
    assert_eq!(operator.run("PING").await, "PONG");
    // Served before those that lead and leave, or after them and before the end of their turn.
    let lines = |nth| vec![format!("GET {{t}}{nth}"), format!("SET {{t}}{nth} 1")];
    send(&mut clients[..CLIENTS / 2], lines).await;
    operator.send_lines(&["CLIENT PAUSE 60000 WRITE"]).await;
    send(&mut clients[CLIENTS / 2..], lines).await;
    assert_eq!(operator.replies(1).await, ["OK"]);
    let done = running.fake.take_log();
    assert!(operator.is_silent_for(MOMENT).await);
    let reads_only = |log: &[String]| log.iter().all(|name| name == "get");
    let since = running.fake.take_log();
    assert!(reads_only(&since), "{since:?} after {done:?}");
    assert_eq!(operator.run("CLIENT UNPAUSE").await, "OK");
    for client in &mut clients {
        assert_eq!(client.replies(2).await[1], "OK");
    }
}

#[tokio::test]
async fn who_is_killed_before_the_end_of_a_turn_writes_nothing() {
    let running = start(&[], |_| {}).await;
    let mut clients = clients(&running).await;
    let mut operator = Client::connect(running.port).await;
    let id = clients[0].run("CLIENT ID").await;
    send(&mut clients, |nth| vec![format!("SET {{t}}{nth} 1")]).await;
    operator.send_lines(&[&format!("CLIENT KILL ID {id}"), "GET {t}0"]).await;
    let [killed, seen] = &operator.replies(2).await[..] else { panic!("two replies") };
    let was_answered = clients[0].reply().await.is_some();
    assert_eq!(killed, "1");
    let later = operator.run("GET {t}0").await;
    assert_eq!(*seen, later, "answered: {was_answered}");
    for client in &mut clients[1..] {
        assert_eq!(client.replies(1).await, ["OK"]);
    }
}

#[tokio::test]
async fn a_turn_with_many_calls_is_had_in_parts() {
    let running = start(&[], |_| {}).await;
    let mut clients = clients(&running).await;
    for _ in 0..2 * CLIENTS {
        clients.push(Client::connect(running.port).await);
    }
    const LINES: usize = 30;
    let lines = |_| vec!["INCR {t}n".to_owned(); LINES];
    for round in 1..=5 {
        send(&mut clients, lines).await;
        let mut replies = Vec::new();
        for client in &mut clients {
            let own = client.replies(LINES).await;
            let numbers: Vec<usize> = own.iter().map(|n| n.parse().expect("a number")).collect();
            assert!(numbers.is_sorted());
            replies.extend(numbers);
        }
        replies.sort_unstable();
        let all = LINES * clients.len();
        assert_eq!(replies, ((round - 1) * all + 1..=round * all).collect::<Vec<_>>());
    }
    assert!(running.fake.joint_calls.load(SeqCst) > 0);
}
