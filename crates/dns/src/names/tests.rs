use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::Names;
use crate::error::LookupError;
use crate::resolver::{Answer, LOOKUP_TIMEOUT, Lookup};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An answer, and how long it takes.
type Scripted = (Result<Answer, LookupError>, Duration);

/// Answers from a table, after a delay; keeps the start of each lookup.
#[derive(Default)]
struct Fake {
    answers: Mutex<HashMap<String, Scripted>>,
    asked: Mutex<Vec<(String, Instant)>>,
}

fn answer(addresses: &str, ttl: u64) -> Result<Answer, LookupError> {
    let addresses = addresses.split_whitespace().map(|address| address.parse().unwrap()).collect();
    Ok(Answer { addresses, valid_for: seconds(ttl), incomplete: None })
}

fn failure() -> Result<Answer, LookupError> {
    Err(LookupError::NoServer)
}

impl Fake {
    fn set(&self, name: &str, answer: Result<Answer, LookupError>, delay: Duration) {
        self.answers.lock().unwrap().insert(name.to_owned(), (answer, delay));
    }

    /// When the name was asked for, in seconds after `start`.
    fn asked(&self, name: &str, start: Instant) -> Vec<u64> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(asked, _)| asked == name).map(|(_, at)| at.duration_since(start).as_secs()).collect()
    }
}

impl Lookup for Fake {
    fn lookup<'a>(&'a self, name: &'a str) -> crate::resolver::LookupFuture<'a> {
        Box::pin(async move {
            self.asked.lock().unwrap().push((name.to_owned(), Instant::now()));
            let (answer, delay) =
                self.answers.lock().unwrap().get(name).cloned().unwrap_or_else(|| (answer("", 5), Duration::ZERO));
            sleep(delay).await;
            answer
        })
    }
}

/// A set whose background task runs.
fn running(names: &[&str], fake: &Arc<Fake>) -> Arc<Names> {
    let set = Names::with_lookup(Arc::clone(fake) as Arc<dyn Lookup>);
    set.watch(names.iter().map(|name| Arc::from(*name)));
    let task = Arc::clone(&set);
    tokio::spawn(async move { task.run().await });
    set
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn names_of(set: &Names, address: &str) -> Vec<String> {
    set.table().names_of(ip(address)).iter().map(ToString::to_string).collect()
}

fn addresses(set: &Names, name: &str) -> Vec<String> {
    set.table().addresses(name).iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_when_its_answer_ends_between_one_and_thirty_seconds() {
    let fake = Arc::new(Fake::default());
    for (name, ttl) in [("zero", 0), ("seven", 7), ("docker", 600)] {
        fake.set(name, answer("10.0.0.1", ttl), Duration::ZERO);
    }
    let start = Instant::now();
    let _set = running(&["zero", "seven", "docker"], &fake);
    sleep(Duration::from_millis(61_500)).await;
    assert_eq!(fake.asked("zero", start), (0..62).collect::<Vec<_>>());
    assert_eq!(fake.asked("seven", start), (0..9).map(|n| n * 7).collect::<Vec<_>>());
    assert_eq!(fake.asked("docker", start), [0, 30, 60]);
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_up_to_thirty_seconds_and_keep_the_addresses() {
    let fake = Arc::new(Fake::default());
    fake.set("cart", answer("10.0.0.1", 10), Duration::ZERO);
    let start = Instant::now();
    let set = running(&["cart"], &fake);
    sleep(Duration::from_millis(500)).await;
    assert!(!set.table().is_failed("cart"));
    fake.set("cart", failure(), Duration::ZERO);
    sleep(seconds(130)).await;
    assert_eq!(fake.asked("cart", start), [0, 10, 11, 13, 17, 25, 41, 71, 101]);
    assert!(set.table().is_failed("cart"));
    assert_eq!(addresses(&set, "cart"), ["10.0.0.1"], "longer than an address outlives answers without it");
    assert_eq!(names_of(&set, "10.0.0.1"), ["cart"]);
    fake.set("cart", answer("10.0.0.2", 600), Duration::ZERO);
    set.refresh_soon("CART");
    sleep(Duration::from_millis(1)).await;
    assert_eq!(addresses(&set, "cart"), ["10.0.0.2"]);
    assert!(!set.table().is_failed("cart"));
    assert_eq!(names_of(&set, "10.0.0.1"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_address_stays_for_matching_ninety_seconds_after_the_last_answer_that_contained_it() {
    let fake = Arc::new(Fake::default());
    fake.set("cart", answer("10.0.0.1", 10), Duration::ZERO);
    let set = running(&["cart"], &fake);
    sleep(Duration::from_millis(500)).await;
    // No such name any more.
    fake.set("cart", answer("", 10), Duration::ZERO);
    sleep(seconds(80)).await;
    assert_eq!(addresses(&set, "cart"), Vec::<String>::new(), "an endpoint is chosen among the last answer only");
    assert!(!set.table().is_failed("cart"), "that there is no such name is an answer");
    assert_eq!(names_of(&set, "10.0.0.1"), ["cart"]);
    sleep(seconds(10)).await;
    assert_eq!(names_of(&set, "10.0.0.1"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_answer_is_used_and_its_name_counts_as_failed() {
    let fake = Arc::new(Fake::default());
    let half = answer("10.0.0.1", 10).map(|answer| Answer { incomplete: Some(LookupError::NoServer), ..answer });
    fake.set("cart", half, Duration::ZERO);
    let set = running(&["cart"], &fake);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(addresses(&set, "cart"), ["10.0.0.1"]);
    assert!(set.table().is_failed("cart"), "an unknown address may be one that the answer lacks");
    assert_eq!((set.table().failed(), set.lookup_counts()[2]), (1, ("incomplete", 1)));
    fake.set("cart", answer("10.0.0.1", 10), Duration::ZERO);
    sleep(seconds(10)).await;
    assert!(!set.table().is_failed("cart"));
}

/// A family that fails for ever keeps its addresses no longer than answers without them would.
#[tokio::test(start_paused = true)]
async fn incomplete_answers_end_the_ninety_seconds_of_the_addresses_that_they_lack() {
    let fake = Arc::new(Fake::default());
    fake.set("cart", answer("10.0.0.1 fd00::1", 10), Duration::ZERO);
    let set = running(&["cart"], &fake);
    sleep(Duration::from_millis(500)).await;
    let half = answer("10.0.0.1", 10).map(|answer| Answer { incomplete: Some(LookupError::NoServer), ..answer });
    fake.set("cart", half, Duration::ZERO);
    sleep(seconds(80)).await;
    assert_eq!(names_of(&set, "fd00::1"), ["cart"]);
    sleep(seconds(10)).await;
    assert_eq!(names_of(&set, "fd00::1"), Vec::<String>::new());
    assert!(set.table().is_failed("cart"), "it may still be one that the answer lacks");
    // What was seen has its time anew, and failures take nothing away.
    fake.set("cart", failure(), Duration::ZERO);
    sleep(seconds(200)).await;
    assert_eq!(names_of(&set, "10.0.0.1"), ["cart"]);
}

/// Else an address that moved would be of two services, and refused, for as long as the old one remembers it.
#[tokio::test(start_paused = true)]
async fn an_address_that_moved_belongs_to_the_name_that_has_it_now() {
    let fake = Arc::new(Fake::default());
    fake.set("cart", answer("10.0.0.1", 10), Duration::ZERO);
    fake.set("orders", answer("10.0.0.2", 10), Duration::ZERO);
    let set = running(&["cart", "orders"], &fake);
    sleep(Duration::from_millis(500)).await;
    fake.set("cart", answer("10.0.0.3", 10), Duration::ZERO);
    fake.set("orders", answer("10.0.0.1", 10), Duration::ZERO);
    sleep(seconds(10)).await;
    assert_eq!(names_of(&set, "10.0.0.1"), ["orders"]);
    assert_eq!(names_of(&set, "10.0.0.2"), ["orders"], "nobody else has it");
    // A lookup that fails gives nothing up: what the last answer said still counts.
    fake.set("orders", failure(), Duration::ZERO);
    sleep(seconds(10)).await;
    assert_eq!(names_of(&set, "10.0.0.1"), ["orders"]);
    fake.set("orders", answer("", 10), Duration::ZERO);
    sleep(seconds(20)).await;
    assert_eq!(names_of(&set, "10.0.0.1"), ["cart", "orders"], "both remember it");
    // Two that have it now are both meant.
    fake.set("orders", answer("10.0.0.3", 10), Duration::ZERO);
    sleep(seconds(10)).await;
    assert_eq!(names_of(&set, "10.0.0.3"), ["cart", "orders"]);
}

#[tokio::test(start_paused = true)]
async fn names_that_stay_in_the_set_keep_their_addresses_and_new_ones_are_looked_up_at_once() {
    let fake = Arc::new(Fake::default());
    fake.set("cart", answer("10.0.0.1", 600), Duration::ZERO);
    fake.set("orders", answer("10.0.0.2 10.0.0.1", 600), Duration::ZERO);
    let set = running(&["cart"], &fake);
    let mut changed = set.changed();
    changed.changed().await.unwrap();
    set.watch(["Orders", "cart"].map(Arc::from));
    assert_eq!(addresses(&set, "cart"), ["10.0.0.1"]);
    assert!(set.table().is_known("orders") && set.table().is_failed("orders"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(names_of(&set, "::ffff:10.0.0.1"), ["cart", "orders"]);
    assert_eq!(addresses(&set, "ORDERS").len(), 2);
    set.watch([]);
    assert!(!set.table().is_known("cart") && set.table().is_failed("cart"));
    assert_eq!(names_of(&set, "10.0.0.1"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_did_not_change_is_not_announced() {
    let fake = Arc::new(Fake::default());
    fake.set("cart", answer("10.0.0.1", 1), Duration::ZERO);
    let set = running(&["cart"], &fake);
    sleep(Duration::from_millis(10)).await;
    let before = *set.changed().borrow();
    sleep(seconds(20)).await;
    assert_eq!(*set.changed().borrow(), before);
    fake.set("cart", answer("10.0.0.2", 1), Duration::ZERO);
    sleep(seconds(2)).await;
    assert_eq!(*set.changed().borrow(), before + 1);
}

/// What an earlier lookup says does not count for an address that was dialled after it began, however late its answer comes.
#[tokio::test(start_paused = true)]
async fn an_unknown_address_waits_for_lookups_that_began_after_it() {
    let fake = Arc::new(Fake::default());
    fake.set("cart", answer("10.0.0.1", 600), Duration::from_millis(800));
    let start = Instant::now();
    let set = running(&["cart"], &fake);
    // The first lookup has begun, and its answer is on the way.
    sleep(Duration::from_millis(100)).await;
    fake.set("cart", answer("10.0.0.2", 600), Duration::from_millis(200));
    set.refresh_all(ip("10.0.0.2")).await;
    assert_eq!(start.elapsed().as_millis(), 300);
    assert_eq!(names_of(&set, "10.0.0.2"), ["cart"]);
    // The older answer comes last, and changes nothing.
    sleep(seconds(1)).await;
    assert_eq!(addresses(&set, "cart"), ["10.0.0.2"]);
    assert_eq!(names_of(&set, "10.0.0.1"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn there_is_one_round_a_second_and_it_serves_all_who_waited_for_it() {
    let fake = Arc::new(Fake::default());
    let set = Names::with_lookup(Arc::clone(&fake) as Arc<dyn Lookup>);
    let start = Instant::now();
    set.refresh_all(ip("192.0.2.1")).await;
    assert_eq!(fake.asked("cart", start), Vec::<u64>::new(), "without names there is nothing to wait for");
    set.watch([Arc::from("cart")]);
    set.refresh_all(ip("192.0.2.1")).await;
    set.refresh_all(ip("192.0.2.1")).await;
    assert_eq!(start.elapsed(), Duration::ZERO, "what was found unknown a moment ago is not looked up again");
    sleep(Duration::from_millis(1)).await;
    let mut waiting = tokio::task::JoinSet::new();
    for last in 2..50 {
        let set = Arc::clone(&set);
        waiting.spawn(async move { set.refresh_all(IpAddr::from([192, 0, 2, last])).await });
    }
    waiting.join_all().await;
    assert_eq!((start.elapsed().as_secs(), fake.asked("cart", start)), (1, vec![0, 1]));
    sleep(seconds(1)).await;
    set.refresh_all(ip("192.0.2.1")).await;
    assert_eq!(fake.asked("cart", start), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_round_whose_connection_ends_serves_nobody_else() {
    let fake = Arc::new(Fake::default());
    fake.set("cart", answer("10.0.0.1", 600), Duration::from_millis(500));
    let set = Names::with_lookup(Arc::clone(&fake) as Arc<dyn Lookup>);
    set.watch([Arc::from("cart")]);
    let cancelled = tokio::time::timeout(Duration::from_millis(100), set.refresh_all(ip("192.0.2.1")));
    let (cancelled, ()) = tokio::join!(cancelled, set.refresh_all(ip("10.0.0.1")));
    assert!(cancelled.is_err());
    assert_eq!(names_of(&set, "10.0.0.1"), ["cart"]);
}

#[tokio::test(start_paused = true)]
async fn a_round_ends_at_its_deadline_and_fails_the_names_without_an_answer() {
    let fake = Arc::new(Fake::default());
    fake.set("slow", answer("10.0.0.1", 600), seconds(60));
    fake.set("cart", answer("10.0.0.2", 600), Duration::ZERO);
    let set = Names::with_lookup(Arc::clone(&fake) as Arc<dyn Lookup>);
    // More slow ones than are asked at once.
    let slow: Vec<Arc<str>> = (0..40).map(|n| Arc::from(format!("slow{n}"))).collect();
    for name in &slow {
        fake.set(name, answer("10.0.0.1", 600), seconds(60));
    }
    set.watch(slow.iter().cloned());
    let start = Instant::now();
    set.refresh_all(ip("192.0.2.1")).await;
    assert_eq!(start.elapsed(), LOOKUP_TIMEOUT);
    assert!(slow.iter().all(|name| set.table().is_failed(name)));
    // One slow name does not keep the others from their answer.
    set.watch([Arc::from("slow"), Arc::from("cart")]);
    set.refresh_all(ip("192.0.2.2")).await;
    assert!(set.table().is_failed("slow") && !set.table().is_failed("cart"));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_does_not_answer_has_its_name_looked_up_once_a_second() {
    let fake = Arc::new(Fake::default());
    fake.set("cart", answer("10.0.0.1", 600), Duration::ZERO);
    let start = Instant::now();
    let set = running(&["cart"], &fake);
    for _ in 0..40 {
        sleep(Duration::from_millis(100)).await;
        set.refresh_soon("cart");
    }
    sleep(Duration::from_millis(10)).await;
    assert_eq!(fake.asked("cart", start), [0, 1, 2, 3, 4]);
    set.refresh_soon("not watched");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However answers come, both directions of the table agree: `names_of` knows each latest address.
    #[test]
    fn every_latest_address_leads_back_to_its_name(
        steps in prop::collection::vec((0_usize..3, prop::option::of(prop::collection::vec(0_u8..6, 0..4)), 0_u64..40), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fake = Arc::new(Fake::default());
            let all = ["a", "b", "c"];
            let set = running(&all, &fake);
            for (name, found, pause) in steps {
                let found = found.map(|last| last.iter().map(|last| format!("10.0.0.{last} ")).collect::<String>());
                fake.set(all[name], found.map_or_else(failure, |found| answer(&found, 3)), Duration::ZERO);
                sleep(seconds(pause)).await;
                let table = set.table();
                for name in all {
                    for address in table.addresses(name) {
                        assert!(table.names_of(*address).iter().any(|known| **known == *name));
                    }
                }
            }
        });
    }
}
