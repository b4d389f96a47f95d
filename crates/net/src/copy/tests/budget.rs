//! What stalled receivers make a copy hold, with and without room in the budget.

use portcullis_buffers::{Budget, PIECE};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::rig::run_charged;
use super::*;
use crate::socket;

const LIMIT: usize = 64_000_000;

/// Sends until nothing is taken any more, and says how much was.
async fn fill(stream: &TcpStream) -> usize {
    let bytes = vec![7; MIB];
    let (mut sent, mut quiet) = (0, 0);
    while quiet < 20 {
        match stream.try_write(&bytes) {
            Ok(count) => (sent, quiet) = (sent + count, 0),
            Err(_) => {
                quiet += 1;
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
    sent
}

/// A connection of `peer` whose app does not read, after as much was sent as is taken.
struct Stalled {
    client: TcpStream,
    app: TcpStream,
    copy: JoinHandle<Copied>,
    sent: usize,
}

async fn stalled(budget: &Arc<Budget<u32>>, peer: u32) -> Stalled {
    let (client, downstream) = tcp_pair().await;
    let (upstream, app) = tcp_pair().await;
    socket::configure(&upstream).unwrap();
    let copy = run_charged(downstream, upstream, budget.open(&peer));
    let sent = fill(&client).await;
    Stalled { client, app, copy, sent }
}

impl Stalled {
    /// Everything that was taken arrives once the app reads.
    async fn drain(mut self) {
        self.client.shutdown().await.unwrap();
        let (got, error) = read_all(&mut self.app).await;
        assert!(got.len() == self.sent && got.iter().all(|byte| *byte == 7), "{} of {}", got.len(), self.sent);
        assert_eq!(error, None);
        drop(self.app);
        assert_eq!(self.copy.await.unwrap(), CLEAN);
    }
}

#[tokio::test]
async fn a_stalled_receiver_is_charged_and_released_when_it_reads() {
    let budget = Budget::new(LIMIT);
    let one = stalled(&budget, 1).await;
    assert_eq!((budget.used(), budget.limited(), buffers_in_use()), (BATCH_LEN, 0, 1));
    one.drain().await;
    assert_eq!((budget.used(), budget.limited(), buffers_in_use()), (0, 0, 0));
}

#[tokio::test]
async fn without_room_a_stalled_receiver_costs_no_buffer_and_no_byte() {
    let budget = Budget::new(0);
    let one = stalled(&budget, 1).await;
    assert!(budget.used() <= PIECE, "{}", budget.used());
    assert_eq!((budget.limited(), buffers_in_use()), (1, 0));
    one.drain().await;
    assert_eq!((budget.used(), budget.limited(), buffers_in_use()), (0, 0, 0));
}

/// What is in hand is copied out of its buffer when it is little. The copy is no buffer to read into: an empty read would pass
/// for the end.
#[tokio::test]
async fn after_a_small_rest_the_copy_goes_on() {
    let sent = Noise::new(9).bytes(MIB);
    let (mut client, downstream, _) = pipe(20_000);
    let (mut app, upstream, _) = pipe(10_000);
    let copy = run(downstream, upstream, CopyLimits::default(), ByteCounts::default());
    let feed = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let ((), read) = tokio::join!(feed, app.read_to_end(&mut got));
    read.unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    drop(app);
    assert_eq!(copy.await.unwrap(), CLEAN);
    assert_eq!(buffers_in_use(), 0);
}

#[tokio::test]
async fn what_a_dropped_copy_held_is_released() {
    let budget = Budget::new(LIMIT);
    let one = stalled(&budget, 1).await;
    assert!(budget.used() > 0);
    one.copy.abort();
    assert!(one.copy.await.unwrap_err().is_cancelled());
    assert_eq!((budget.used(), budget.limited(), buffers_in_use()), (0, 0, 0));
}

/// A peer can cut its bytes off in the middle of a record, while the receiver of what came before does not read.
#[tokio::test]
async fn what_is_held_while_the_last_bytes_are_delivered_is_charged() {
    let budget = Budget::new(LIMIT);
    let (client, mut downstream, _) = pipe(1000);
    let (_app, mut upstream, _) = pipe(1000);
    (downstream.end, downstream.held) = (Some(ErrorKind::UnexpectedEof), 16_000);
    upstream.stuck = true;
    let limits = CopyLimits { half_close: Duration::from_millis(200), ..CopyLimits::default() };
    let (account, counts) = (budget.open(&1), ByteCounts::default());
    drop(client);
    let copy = bidirectional(&mut downstream, &mut upstream, &limits, &counts, &account);
    let mut copy = std::pin::pin!(copy);
    assert!(timeout(Duration::from_millis(50), copy.as_mut()).await.is_err(), "the receiver still has bytes to get");
    assert_eq!(budget.used(), 16_000);
    assert_eq!(copy.await.end, CopyEnd::Truncated { by: Side::Downstream });
    assert_eq!(budget.used(), 0);
}

/// The receivers of one peer stall, and another one still gets a whole buffer.
#[tokio::test]
async fn a_peer_that_has_its_share_does_not_limit_another() {
    let budget = Budget::new(8 * BATCH_LEN);
    let hostile = [stalled(&budget, 1).await, stalled(&budget, 1).await];
    // A quarter is two buffers: after the first there is no room for what a second one might hold.
    assert!((BATCH_LEN..=BATCH_LEN + PIECE).contains(&budget.used()), "{}", budget.used());
    assert_eq!(budget.limited(), 1);
    let honest = stalled(&budget, 2).await;
    assert!((2 * BATCH_LEN..=2 * BATCH_LEN + PIECE).contains(&budget.used()), "{}", budget.used());
    honest.drain().await;
    for one in hostile {
        one.drain().await;
    }
    assert_eq!((budget.used(), budget.limited(), buffers_in_use()), (0, 0, 0));
}

async fn both_ways_while_the_budget_flips(seed: u64, up: usize, down: usize) {
    let budget = Budget::new(LIMIT);
    let mut noise = Noise::new(seed);
    let (up, down) = (noise.bytes(up), noise.bytes(down));
    let (client, downstream) = tcp_pair().await;
    let (upstream, app) = tcp_pair().await;
    let copy = run_charged(downstream, upstream, budget.open(&1));
    let account = budget.open(&1);
    let mut noises = (0..5).map(|_| Noise::new(noise.next())).collect::<Vec<_>>().into_iter();
    let mut noise = || noises.next().unwrap();
    let mut flips = noise();
    let flip = async {
        let mut other = Charge::new(&account);
        loop {
            other.set(if flips.size(2) == 1 { LIMIT } else { 0 });
            for _ in 0..flips.size(5) {
                tokio::task::yield_now().await;
            }
        }
    };
    let (client_reads, client_writes) = client.into_split();
    let (app_reads, app_writes) = app.into_split();
    let moved = async {
        tokio::join!(
            send(client_writes, &up, noise()),
            send(app_writes, &down, noise()),
            receive(app_reads, noise()),
            receive(client_reads, noise()),
        )
    };
    let ((), (), got_by_app, got_by_client) = tokio::select! {
        moved = moved => moved,
        never = flip => never,
    };
    assert!(got_by_app == up, "seed {seed}: client to app");
    assert!(got_by_client == down, "seed {seed}: app to client");
    assert_eq!(copy.await.unwrap(), CLEAN);
    drop(account);
    assert_eq!((budget.used(), budget.limited(), buffers_in_use()), (0, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_arrive_whole_while_the_budget_flips(seed in any::<u64>(), up in 0..2 * MIB, down in 0..2 * MIB) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let moving = both_ways_while_the_budget_flips(seed, up, down);
            timeout(Duration::from_secs(60), moving).await.unwrap();
        });
    }
}
