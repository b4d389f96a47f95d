//! Asks many sidecars at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Answer, SidecarTarget, Unanswered, Url};

/// How many sidecars are asked at once.
const AT_ONCE: usize = 64;
/// How the admin server of a sidecar begins its answer to a path that it does not have.
const NO_SUCH_PATH: &str = "no such path; there are:";
/// How much of a wrong answer is shown.
const SHOWN: usize = 80;

/// What became of one sidecar.
#[derive(Clone, Debug)]
pub struct Row<T> {
    /// Which sidecar.
    pub target: SidecarTarget,
    /// Its answer, or why there is none.
    pub answer: Result<T, Unanswered>,
}

/// One sidecar while it is asked.
#[derive(Clone, Debug)]
pub struct Sidecar {
    target: SidecarTarget,
    within: Duration,
    deadline: Instant,
}

impl Sidecar {
    /// Which sidecar it is.
    #[must_use]
    pub const fn target(&self) -> &SidecarTarget {
        &self.target
    }

    /// The answer of `path`, which may have a query.
    ///
    /// # Errors
    /// If there is none within the deadline of this sidecar, or it has another form.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Unanswered> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let url = Url::of(self.target.address.clone(), path);
        let answer = url.fetch(Method::GET, left).await.map_err(|error| Unanswered::from_io(&error, self.within))?;
        read(&answer, path)
    }
}

/// Asks each of `targets`, at most 64 at once, each within its own deadline. The rows are in the order of the targets.
pub async fn ask<T, F, Fut>(targets: &[SidecarTarget], within: Duration, question: F) -> Vec<Row<T>>
where
    F: Fn(Sidecar) -> Fut,
    Fut: Future<Output = Result<T, Unanswered>> + Send + 'static,
    T: Send + 'static,
{
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut asked = JoinSet::new();
    for (index, target) in targets.iter().enumerate() {
        // Never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let deadline = Instant::now() + within;
        let question = question(Sidecar { target: target.clone(), within, deadline });
        asked.spawn(async move {
            // Whatever the question does between two requests, the deadline holds.
            let answer = tokio::time::timeout_at(deadline, question).await;
            drop(slot);
            (index, answer.unwrap_or(Err(Unanswered::TimedOut(within))))
        });
    }
    let mut answers: Vec<Option<Result<T, Unanswered>>> = targets.iter().map(|_| None).collect();
    while let Some(answered) = asked.join_next().await {
        if let Ok((index, answer)) = answered
            && let Some(place) = answers.get_mut(index)
        {
            *place = Some(answer);
        }
    }
    let failed = || Err(Unanswered::Unreachable("asking it failed".to_owned()));
    let row = |(target, answer): (&SidecarTarget, Option<_>)| Row {
        target: target.clone(),
        answer: answer.unwrap_or_else(failed),
    };
    targets.iter().zip(answers).map(row).collect()
}

/// Reads an answer, or says what it is instead.
fn read<T: DeserializeOwned>(answer: &Answer, path: &str) -> Result<T, Unanswered> {
    let page = path.split_once('?').map_or(path, |(page, _)| page);
    let says = || beginning(&answer.body);
    match answer.status {
        200 => serde_json::from_str(&answer.body).map_err(|error| {
            let form = if error.is_data() { "another form" } else { "no JSON" };
            Unanswered::NotASidecar(format!("{page} has {form} ({error})"))
        }),
        404 if answer.body.starts_with(NO_SUCH_PATH) => Err(Unanswered::TooOld(page.to_owned())),
        401 | 403 => Err(Unanswered::Forbidden(says())),
        status => Err(Unanswered::NotASidecar(format!("{page} gives status {status}: {}", says()))),
    }
}

/// The first line of a text, or as much as is worth showing.
fn beginning(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}
