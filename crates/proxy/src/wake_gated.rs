//! A future that is rarely woken, next to one that is polled for every byte.
//!
//! A task that waits for several futures is woken by one of them and polls all. Polling is not free: waiting for a change of
//! policy takes, on each poll, a lock that all connections share. Here such a future is polled only after its own waker was
//! called.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// The waker that the gated future gets: it records the wake-up, and wakes the task.
struct GateWaker {
    woken: AtomicBool,
    task: Waker,
}

impl GateWaker {
    /// Starts as woken, since the future must be polled once to register its waker.
    fn new(task: &Waker) -> Arc<Self> {
        Arc::new(Self { woken: AtomicBool::new(true), task: task.clone() })
    }
}

impl Wake for GateWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// A future that is polled at first and after it was woken itself, not whenever its task is. It is borrowed: moved in here, it
/// would take its space in the task twice.
pub(crate) struct WakeGated<'a, F> {
    future: Pin<&'a mut F>,
    waker: Option<Arc<GateWaker>>,
}

impl<'a, F> WakeGated<'a, F> {
    pub(crate) const fn new(future: Pin<&'a mut F>) -> Self {
        Self { future, waker: None }
    }
}

impl<F: Future> Future for WakeGated<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, waker } = &mut *self;
        let gate = waker.take().filter(|gate| gate.task.will_wake(cx.waker()));
        let gate = waker.insert(gate.unwrap_or_else(|| GateWaker::new(cx.waker())));
        // Cleared before the poll: a wake-up from here on sets it again.
        if gate.woken.swap(false, Ordering::AcqRel) {
            future.as_mut().poll(&mut Context::from_waker(&Arc::clone(gate).into()))
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    /// Waits until `value` is two, and counts how often it is polled.
    async fn two(mut value: watch::Receiver<u32>, polls: Arc<AtomicU32>) {
        let mut waiting = pin!(value.wait_for(|value| *value == 2));
        poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            waiting.as_mut().poll(cx).map(drop)
        })
        .await;
    }

    /// In a task, as connections are: only there `will_wake` holds for all wakers of one task in every build.
    #[tokio::test]
    async fn it_is_polled_when_it_is_woken_and_not_when_its_task_is() {
        let (sender, value) = watch::channel(0);
        let polls = Arc::new(AtomicU32::new(0));
        let task = tokio::spawn(async move {
            let waiting = pin!(two(value, Arc::clone(&polls)));
            let mut waiting = WakeGated::new(waiting);
            let mut polled = Vec::new();
            for turn in 0..300 {
                if turn % 100 == 50 {
                    sender.send_modify(|value| *value += 1);
                }
                let over = poll_fn(|cx| Poll::Ready(Pin::new(&mut waiting).poll(cx).is_ready())).await;
                polled.push((polls.load(Ordering::Relaxed), over));
                if over {
                    break;
                }
                yield_now().await;
            }
            polled
        });
        let polled = task.await.unwrap();
        assert_eq!((polled[0], polled[49], polled[50], polled[149]), ((1, false), (1, false), (2, false), (2, false)));
        assert_eq!(polled[150..], [(3, true)]);
    }

    /// A notifier changes the value first and then wakes: a task that runs between the two sees the value before its wake-up.
    #[tokio::test]
    async fn no_wake_up_is_lost() {
        for round in 0..1000 {
            let (sender, value) = watch::channel(0);
            let done = Arc::new(AtomicBool::new(false));
            let over = Arc::clone(&done);
            let busy = async move {
                while !over.load(Ordering::Relaxed) {
                    yield_now().await;
                }
                std::future::pending::<()>().await;
            };
            let task = tokio::spawn(async move {
                let waiting = pin!(two(value, Arc::default()));
                tokio::select! {
                    biased;
                    () = WakeGated::new(waiting) => {}
                    () = busy => {}
                }
            });
            let changing = std::thread::spawn(move || {
                for _ in 0..2 {
                    std::thread::sleep(Duration::from_micros(round % 100));
                    sender.send_modify(|value| *value += 1);
                }
                done.store(true, Ordering::Relaxed);
                sender
            });
            let seen = timeout(Duration::from_secs(10), task).await;
            assert!(matches!(seen, Ok(Ok(()))), "round {round}: {seen:?}");
            drop(changing.join().unwrap());
        }
    }

    #[tokio::test]
    async fn it_follows_its_task() {
        let (sender, value) = watch::channel(0);
        let waiting = async move { WakeGated::new(pin!(two(value, Arc::default()))).await };
        let mut waiting = Box::pin(waiting);
        let elsewhere = tokio::spawn(async move {
            let early = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_ready())).await;
            (waiting, early)
        });
        let (waiting, early) = elsewhere.await.unwrap();
        assert!(!early);
        let here = tokio::spawn(waiting);
        yield_now().await;
        sender.send_replace(2);
        timeout(Duration::from_secs(10), here).await.unwrap().unwrap();
    }
}
