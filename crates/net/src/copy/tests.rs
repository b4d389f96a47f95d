use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use portcullis_buffers::buffers_in_use;
use portcullis_wire::BATCH_LEN;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use self::rig::{Noise, Rig, pipe, run, tcp_pair};
use super::*;

mod budget;
mod rig;

const MIB: usize = 1 << 20;

fn idle_after(seconds: u64) -> CopyLimits {
    CopyLimits { idle: Some(Duration::from_secs(seconds)), ..CopyLimits::default() }
}

const FINISHED: FlowEnd = FlowEnd::Finished;

const CLEAN: Copied = Copied { end: CopyEnd::Clean, from_downstream: FINISHED, from_upstream: FINISHED };

/// Writes in pieces of random sizes, then ends the direction.
async fn send(mut writer: impl AsyncWrite + Unpin, bytes: &[u8], mut noise: Noise) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(noise.size(100_000).min(rest.len()));
        writer.write_all(piece).await.unwrap();
        rest = after;
        if noise.size(4) == 1 {
            tokio::task::yield_now().await;
        }
    }
    writer.shutdown().await.unwrap();
}

/// Reads in pieces of random sizes up to the end.
async fn receive(mut reader: impl AsyncRead + Unpin, mut noise: Noise) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        let mut piece = vec![0; noise.size(100_000)];
        match reader.read(&mut piece).await.unwrap() {
            0 => return got,
            n => got.extend_from_slice(&piece[..n]),
        }
        if noise.size(4) == 1 {
            tokio::task::yield_now().await;
        }
    }
}

/// Reads to the end; the bytes, and the error if the end was not clean.
async fn read_all(mut reader: impl AsyncRead + Unpin) -> (Vec<u8>, Option<ErrorKind>) {
    let mut got = Vec::new();
    let result = reader.read_to_end(&mut got).await;
    (got, result.err().map(|error| error.kind()))
}

async fn both_ways(seed: u64, up: usize, down: usize) {
    let mut noise = Noise::new(seed);
    let (up, down) = (noise.bytes(up), noise.bytes(down));
    let Rig { client, app, copy, counts } = Rig::new().await;
    let (client_reads, client_writes) = client.into_split();
    let (app_reads, app_writes) = app.into_split();
    let mut noises = (0..4).map(|_| Noise::new(noise.next())).collect::<Vec<_>>().into_iter();
    let mut noise = || noises.next().unwrap();
    let ((), (), got_by_app, got_by_client) = tokio::join!(
        send(client_writes, &up, noise()),
        send(app_writes, &down, noise()),
        receive(app_reads, noise()),
        receive(client_reads, noise()),
    );
    assert!(got_by_app == up, "seed {seed}: client to app");
    assert!(got_by_client == down, "seed {seed}: app to client");
    assert_eq!(copy.await.unwrap(), CLEAN);
    assert_eq!(counts.get(), (up.len() as u64, down.len() as u64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_arrive_whole_both_ways(seed in any::<u64>(), up in 0..2 * MIB, down in 0..2 * MIB) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            timeout(Duration::from_secs(30), both_ways(seed, up, down)).await.unwrap();
        });
        prop_assert_eq!(buffers_in_use(), 0);
    }
}

#[tokio::test]
async fn the_client_ends_first_and_the_late_answer_arrives() {
    let Rig { mut client, mut app, copy, .. } = Rig::new().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut app).await, (b"question".to_vec(), None));
    app.write_all(b"late answer").await.unwrap();
    drop(app);
    assert_eq!(read_all(&mut client).await, (b"late answer".to_vec(), None));
    assert_eq!(copy.await.unwrap(), CLEAN);
}

#[tokio::test]
async fn the_app_ends_first_and_later_bytes_reach_it() {
    let Rig { mut client, mut app, copy, .. } = Rig::new().await;
    app.write_all(b"greeting").await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, (b"greeting".to_vec(), None));
    client.write_all(b"later").await.unwrap();
    drop(client);
    assert_eq!(read_all(&mut app).await, (b"later".to_vec(), None));
    assert_eq!(copy.await.unwrap(), CLEAN);
}

#[tokio::test]
async fn a_reset_is_passed_on_after_the_bytes_before_it() {
    for by in [Side::Downstream, Side::Upstream] {
        let Rig { client, app, copy, .. } = Rig::new().await;
        let (mut resetting, mut other) = if by == Side::Downstream { (client, app) } else { (app, client) };
        resetting.write_all(b"last words").await.unwrap();
        resetting.reset_on_close().unwrap();
        drop(resetting);
        assert_eq!(read_all(&mut other).await, (b"last words".to_vec(), Some(ErrorKind::ConnectionReset)));
        assert_eq!(copy.await.unwrap().end, CopyEnd::Reset { by });
    }
}

/// An app that answers early and closes with unread bytes: we notice when we write to it, and its answer, which came
/// before, must not be lost over that.
#[tokio::test]
async fn what_a_side_said_before_it_refused_our_bytes_is_delivered() {
    for round in 0..20 {
        let Rig { client, mut app, copy, .. } = Rig::new().await;
        let (client_reads, mut client_writes) = client.into_split();
        let flood = tokio::spawn(async move {
            let chunk = vec![0; 1000];
            loop {
                if let Err(error) = client_writes.write_all(&chunk).await {
                    break error.kind();
                }
            }
        });
        app.read_exact(&mut [0; 10_000]).await.unwrap();
        app.write_all(b"too large").await.unwrap();
        // Closing with something unread is what makes it a reset.
        assert_eq!(app.peek(&mut [0]).await.unwrap(), 1);
        drop(app);
        let (got, _) = read_all(client_reads).await;
        assert_eq!(got, b"too large", "round {round}");
        let copied = copy.await.unwrap();
        assert_eq!(copied.end, CopyEnd::Reset { by: Side::Upstream });
        assert_eq!(copied.from_upstream, FlowEnd::Open, "no clean end was passed on");
        // Whichever of the client's halves asks first learns of the reset, the other one sees what follows from it.
        assert!(matches!(flood.await.unwrap(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
    }
}

/// The kernel mentions a reset once. If a write has got the mention, the read that follows sees an end like a clean one.
#[tokio::test(start_paused = true)]
async fn an_end_behind_a_failed_write_is_not_passed_on_as_a_clean_one() {
    let (mut client, downstream, downstream_seen) = pipe(64);
    let (mut app, mut upstream, upstream_seen) = pipe(64);
    upstream.write = Some(ErrorKind::ConnectionReset);
    client.write_all(b"x").await.unwrap();
    app.write_all(b"y").await.unwrap();
    app.shutdown().await.unwrap();
    let copied = run(downstream, upstream, CopyLimits::default(), ByteCounts::default()).await.unwrap();
    assert_eq!(copied.end, CopyEnd::Reset { by: Side::Upstream });
    assert_eq!(copied.from_upstream, FlowEnd::Open);
    assert_eq!((downstream_seen.reset(), upstream_seen.reset()), (true, false));
    assert_eq!(read_all(client).await.0, b"y", "what came before is delivered");
}

#[tokio::test]
async fn a_truncated_stream_is_delivered_and_then_reset() {
    let Rig { mut client, mut app, copy, .. } = Rig::with_truncating_client().await;
    client.write_all(b"half a request").await.unwrap();
    drop(client);
    assert_eq!(read_all(&mut app).await, (b"half a request".to_vec(), Some(ErrorKind::ConnectionReset)));
    let copied = copy.await.unwrap();
    assert_eq!(copied.end, CopyEnd::Truncated { by: Side::Downstream });
    assert_eq!(copied.truncated_after_close(), None);
}

/// A reset discards what the kernel has not sent. The app here reads nothing until well after the truncation, so most of
/// the bytes are still on our side of its window then.
#[tokio::test]
async fn a_truncated_stream_is_delivered_to_a_slow_reader_before_the_reset() {
    let Rig { mut client, mut app, copy, counts } = Rig::with_truncating_client().await;
    // Enough to fill the app's receive buffer and a part of our send buffer, but not all of it.
    let window = {
        let (probe, _peer) = tcp_pair().await;
        std::iter::from_fn(|| probe.try_write(&[0; 4096]).ok()).sum::<usize>()
    };
    let sent = Noise::new(3).bytes(window * 3 / 4);
    client.write_all(&sent).await.unwrap();
    drop(client);
    while counts.get().0 < sent.len() as u64 {
        sleep(Duration::from_millis(1)).await;
    }
    // The end has been read by now, or will be while the app reads.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let (got, error) = read_all(&mut app).await;
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
    assert_eq!(copy.await.unwrap().end, CopyEnd::Truncated { by: Side::Downstream });
}

#[tokio::test]
async fn a_truncation_after_our_own_end_is_only_counted() {
    let Rig { mut client, mut app, copy, .. } = Rig::with_truncating_client().await;
    client.write_all(b"question").await.unwrap();
    app.read_exact(&mut [0; 8]).await.unwrap();
    app.write_all(b"answer").await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, (b"answer".to_vec(), None));
    drop(client);
    assert_eq!(read_all(&mut app).await, (Vec::new(), None));
    let copied = copy.await.unwrap();
    assert_eq!(copied.end, CopyEnd::Clean);
    assert_eq!(copied.truncated_after_close(), Some(Side::Downstream));
    assert_eq!((copied.from_downstream, copied.from_upstream), (FlowEnd::TruncatedAfterClose, FINISHED));
}

/// Both ends come up in the same poll; whichever is looked at first, our direction had ended.
#[tokio::test(start_paused = true)]
async fn a_truncation_together_with_our_own_end_is_only_counted() {
    for truncated in [Side::Downstream, Side::Upstream] {
        let (client, mut downstream, _) = pipe(64);
        let (app, mut upstream, _) = pipe(64);
        match truncated {
            Side::Downstream => downstream.end = Some(ErrorKind::UnexpectedEof),
            Side::Upstream => upstream.end = Some(ErrorKind::UnexpectedEof),
        }
        drop((client, app));
        let copied = run(downstream, upstream, CopyLimits::default(), ByteCounts::default()).await.unwrap();
        assert_eq!((copied.end, copied.truncated_after_close()), (CopyEnd::Clean, Some(truncated)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_resets_the_other_side_and_names_its_own() {
    for (kind, write, operation) in
        [(ErrorKind::InvalidData, false, IoOperation::Read), (ErrorKind::TimedOut, true, IoOperation::Write)]
    {
        let (client, mut downstream, downstream_seen) = pipe(64);
        let (mut app, mut upstream, upstream_seen) = pipe(64);
        if write {
            downstream.write = Some(kind);
        } else {
            upstream.end = Some(kind);
        }
        app.write_all(b"x").await.unwrap();
        app.shutdown().await.unwrap();
        let copied = run(downstream, upstream, CopyLimits::default(), ByteCounts::default()).await.unwrap();
        let side = if write { Side::Downstream } else { Side::Upstream };
        assert_eq!(copied.end, CopyEnd::Error { side, operation, kind });
        assert_eq!((downstream_seen.reset(), upstream_seen.reset()), (!write, write));
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_refuses_bytes_and_says_nothing_is_not_waited_for_long() {
    let (_client, mut downstream, _) = pipe(64);
    let (mut app, upstream, seen) = pipe(64);
    downstream.write = Some(ErrorKind::BrokenPipe);
    app.write_all(b"x").await.unwrap();
    let start = Instant::now();
    let copied = run(downstream, upstream, CopyLimits::default(), ByteCounts::default()).await.unwrap();
    assert_eq!(copied.end, CopyEnd::Reset { by: Side::Downstream });
    assert!(seen.reset());
    assert_eq!(start.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn after_the_first_end_a_minute_without_a_byte_ends_it() {
    let (mut client, downstream, downstream_seen) = pipe(64);
    let (mut app, upstream, upstream_seen) = pipe(64);
    let copy = run(downstream, upstream, CopyLimits::default(), ByteCounts::default());
    // Without an idle limit, silence before the first end is no matter.
    sleep(Duration::from_secs(100_000)).await;
    client.shutdown().await.unwrap();
    let start = Instant::now();
    // Sixty seconds in all would end this after the second byte.
    for _ in 0..5 {
        sleep(Duration::from_secs(50)).await;
        app.write_u8(b'x').await.unwrap();
        client.read_u8().await.unwrap();
    }
    let copied = copy.await.unwrap();
    assert_eq!(copied.end, CopyEnd::HalfCloseTimeout);
    assert_eq!((copied.from_downstream, copied.from_upstream), (FINISHED, FlowEnd::Open));
    assert_eq!(start.elapsed().as_secs(), 5 * 50 + 60);
    assert!(downstream_seen.reset() && upstream_seen.reset());
}

#[tokio::test(start_paused = true)]
async fn silence_in_both_directions_ends_it_after_the_idle_limit() {
    let (mut client, downstream, downstream_seen) = pipe(64);
    let (mut app, upstream, upstream_seen) = pipe(64);
    let copy = run(downstream, upstream, idle_after(3600), ByteCounts::default());
    let start = Instant::now();
    for _ in 0..3 {
        sleep(Duration::from_secs(3000)).await;
        client.write_u8(b'x').await.unwrap();
        app.read_u8().await.unwrap();
    }
    assert_eq!(copy.await.unwrap().end, CopyEnd::IdleTimeout);
    assert_eq!(start.elapsed().as_secs(), 3 * 3000 + 3600);
    assert!(downstream_seen.reset() && upstream_seen.reset());
}

#[tokio::test(start_paused = true)]
async fn the_shorter_limit_holds_after_the_first_end() {
    for (idle, expected, end) in [(20, 20, CopyEnd::IdleTimeout), (3600, 60, CopyEnd::HalfCloseTimeout)] {
        let (mut client, downstream, _) = pipe(64);
        let (_app, upstream, _) = pipe(64);
        client.shutdown().await.unwrap();
        let start = Instant::now();
        let copied = run(downstream, upstream, idle_after(idle), ByteCounts::default()).await.unwrap();
        assert_eq!((copied.end, start.elapsed().as_secs()), (end, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_limit_beyond_the_clock_is_none() {
    let (mut client, downstream, _) = pipe(64);
    let (app, upstream, _) = pipe(64);
    let limits = CopyLimits { idle: Some(Duration::MAX), ..CopyLimits::default() };
    let copy = run(downstream, upstream, limits, ByteCounts::default());
    sleep(Duration::from_secs(100_000)).await;
    client.shutdown().await.unwrap();
    drop(app);
    assert_eq!(copy.await.unwrap(), CLEAN);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_bounds_what_is_taken_from_the_sender() {
    let capacity = 100_000;
    let (mut client, downstream, _) = pipe(capacity);
    let (mut app, upstream, _) = pipe(capacity);
    let counts = ByteCounts::default();
    let copy = run(downstream, upstream, CopyLimits::default(), counts.clone());
    let sent = Noise::new(5).bytes(MIB);
    let mut taken = 0;
    while let Ok(n) = timeout(Duration::from_secs(5), client.write(&sent[taken..])).await {
        taken += n.unwrap();
    }
    // The two pipes are full, and between them is one buffer at most.
    assert!(taken <= 2 * capacity + BATCH_LEN, "{taken} bytes taken");
    assert_eq!(buffers_in_use(), 1);
    assert_eq!(counts.get(), (capacity as u64, 0), "only what the reader's side took counts");
    let feed = async {
        client.write_all(&sent[taken..]).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let ((), read) = tokio::join!(feed, app.read_to_end(&mut got));
    read.unwrap();
    assert!(got == sent);
    drop(app);
    assert_eq!(copy.await.unwrap(), CLEAN);
    assert_eq!(buffers_in_use(), 0);
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    let mut rigs = Vec::new();
    for _ in 0..20 {
        let mut rig = Rig::new().await;
        rig.client.write_all(b"ping").await.unwrap();
        rig.app.read_exact(&mut [0; 4]).await.unwrap();
        rig.app.write_all(b"pong").await.unwrap();
        rig.client.read_exact(&mut [0; 4]).await.unwrap();
        rigs.push(rig);
    }
    assert!(rigs.iter().all(|rig| !rig.copy.is_finished() && rig.counts.get() == (4, 4)));
    assert_eq!(buffers_in_use(), 0);
}

#[tokio::test]
async fn a_dropped_copy_gives_its_buffer_back() {
    let (mut client, downstream, _) = pipe(100_000);
    let (_app, upstream, _) = pipe(10);
    client.write_all(&[0; 100_000]).await.unwrap();
    let copy = run(downstream, upstream, CopyLimits::default(), ByteCounts::default());
    tokio::task::yield_now().await;
    assert_eq!(buffers_in_use(), 1);
    copy.abort();
    assert!(copy.await.unwrap_err().is_cancelled());
    assert_eq!(buffers_in_use(), 0);
}

/// A TLS stream may take bytes and hold them back until it is flushed.
#[tokio::test(start_paused = true)]
async fn the_writer_is_flushed_when_the_reader_has_no_more() {
    let (mut client, downstream, _) = pipe(64);
    let (mut app, upstream, seen) = pipe(64);
    let _copy = run(downstream, upstream, CopyLimits::default(), ByteCounts::default());
    client.write_all(b"x").await.unwrap();
    app.read_u8().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(seen.flushes(), 1);
}

/// A source and sink without end, always ready.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buffer.put_slice(&vec![0; buffer.remaining()]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Duplex for Endless {
    fn reset_on_close(&self) -> io::Result<()> {
        Ok(())
    }

    fn all_sent(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_busy_connection_lets_others_have_a_turn() {
    let (limits, counts) = (CopyLimits::default(), ByteCounts::default());
    let (mut downstream, mut upstream) = (Endless, Endless);
    let usage = Usage::unlimited();
    let mut copy = std::pin::pin!(bidirectional(&mut downstream, &mut upstream, &limits, &counts, &usage));
    for turn in 1..10 {
        let woken = Arc::new(Woken::default());
        let polled = copy.as_mut().poll(&mut Context::from_waker(&Arc::clone(&woken).into()));
        assert!(polled.is_pending() && woken.0.load(Ordering::Relaxed), "it asks for another turn");
        let (up, down) = counts.get();
        assert_eq!(up, down, "both directions get the same");
        assert!((1..=turn * MIB as u64 / 2).contains(&up), "{up} bytes after {turn} turns");
    }
    assert_eq!(buffers_in_use(), 0);
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_future_of_a_copy_stays_small() {
    let (_client, mut downstream) = tcp_pair().await;
    let (mut upstream, _app) = tcp_pair().await;
    let (limits, counts) = (CopyLimits::default(), ByteCounts::default());
    let usage = Usage::unlimited();
    let future = bidirectional(&mut downstream, &mut upstream, &limits, &counts, &usage);
    assert!(size_of_val(&future) <= 600, "{} bytes", size_of_val(&future));
}

#[tokio::test]
async fn a_copy_that_is_cut_resets_both() {
    let (mut client, downstream) = tcp_pair().await;
    let (upstream, mut app) = tcp_pair().await;
    reset_both(&downstream, &upstream);
    drop((downstream, upstream));
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(app.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_replayed_prefix_is_forwarded_first_and_counted() {
    let (mut client, downstream) = tcp_pair().await;
    let (upstream, mut app) = tcp_pair().await;
    let counts = ByteCounts::default();
    let replay = crate::Replay::new(b"seen ".to_vec(), downstream);
    let copy = run(replay, upstream, CopyLimits::default(), counts.clone());
    client.write_all(b"unseen").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut app).await, (b"seen unseen".to_vec(), None));
    drop(app);
    assert_eq!(copy.await.unwrap(), CLEAN);
    assert_eq!(counts.get(), (11, 0));
}
