//! The page while it is open: server-sent events (WHATWG HTML, section 9.2) with its new content whenever that differs.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use portcullis_dashboard::{View, fragment};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often the content is made again while somebody looks at it.
const REFRESH: Duration = Duration::from_secs(2);
/// A comment is sent after so many rounds without a change, so that both sides notice a connection that is gone.
const QUIET_ROUNDS: u32 = 7;

/// What the page shows at the moment.
pub trait Views: Send + Sync + 'static {
    /// Asked for each request and by every page that is open; must not wait. The same one again means that nothing is new.
    fn view(&self) -> Arc<View>;
}

/// The body of `/events`: it does not end by itself.
pub(crate) struct Events {
    views: Arc<dyn Views>,
    ticks: Interval,
    seen: Option<Arc<View>>,
    sent: Option<String>,
    quiet: u32,
}

impl Events {
    pub(crate) fn new(views: Arc<dyn Views>) -> Self {
        let mut ticks = interval(REFRESH);
        // A reader that was slow wants the newest content only.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { views, ticks, seen: None, sent: None, quiet: 0 }
    }

    /// What is sent in this round, if anything.
    fn round(&mut self) -> Option<String> {
        let view = self.views.view();
        let is_seen = self.seen.replace(Arc::clone(&view)).is_some_and(|seen| Arc::ptr_eq(&seen, &view));
        let content = if is_seen { None } else { Some(fragment(&view)).filter(|new| self.sent.as_ref() != Some(new)) };
        let Some(content) = content else {
            self.quiet = self.quiet.saturating_add(1);
            if self.quiet < QUIET_ROUNDS {
                return None;
            }
            self.quiet = 0;
            return Some(": still here\n\n".to_owned());
        };
        self.quiet = 0;
        let event = format!("data: {}\n\n", json_string(&content));
        self.sent = Some(content);
        Some(event)
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        while this.ticks.poll_tick(context).is_ready() {
            if let Some(text) = this.round() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))));
            }
        }
        Poll::Pending
    }
}

/// Text as JSON, so that it is one line, as the data of an event must be.
fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            c if c < ' ' => {
                // Writing to a string does not fail.
                let _infallible = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;

    use super::*;

    #[derive(Default)]
    struct Titles(AtomicUsize);

    impl Views for Titles {
        fn view(&self) -> Arc<View> {
            Arc::new(View { answered: self.0.load(Ordering::Relaxed), ..View::default() })
        }
    }

    async fn next(events: &mut Events) -> String {
        let frame = events.frame().await.unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn content_is_sent_at_once_and_again_only_when_it_differs() {
        let views = Arc::<Titles>::default();
        let mut events = Events::new(Arc::<Titles>::clone(&views) as Arc<dyn Views>);
        let first = next(&mut events).await;
        assert!(first.starts_with("data: \"") && first.ends_with("\"\n\n") && first.trim_end().lines().count() == 1);
        let start = tokio::time::Instant::now();
        assert_eq!(next(&mut events).await, ": still here\n\n");
        assert_eq!(start.elapsed(), REFRESH * QUIET_ROUNDS);
        views.0.store(7, Ordering::Relaxed);
        assert!(next(&mut events).await.contains("7 of 0 sidecars"));
    }

    #[test]
    fn any_text_is_one_line_of_json() {
        assert_eq!(json_string("a\"b\\c\nd\r\u{1}é"), r#""a\"b\\c\nd\u000d\u0001é""#);
    }
}
