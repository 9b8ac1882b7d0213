//! The life of one instance: it takes requests from the pool, serves them at once, and ends when it should.
//!
//! Invariant: an instance takes a further request only when its guest waits for something, so that a computing guest
//! never holds back requests that another instance could serve.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{pending, poll_fn};
use futures::stream::{FuturesUnordered, StreamExt as _};
use wasmtime::AsContextMut as _;
use wasmtime::component::{Accessor, Func};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::handler::{Prepared, Proxy};

use crate::engine::{Instance, chain};
use crate::guest::GuestState;
use crate::instance::{Job, Place, ReusePolicy};
use crate::limits;

/// Makes an instance and serves with it until it ends.
pub(crate) async fn run(place: Place) {
    let shared = place.shared();
    let Instance { mut store, service, yielded } = match shared.instantiate().await {
        Ok(instance) => instance,
        Err(error) => {
            tracing::error!(error = %chain(&error), "no instance could be made");
            place.fail_one(error);
            return;
        }
    };
    let progress = Progress::new(shared.policy, yielded);
    let served = store.run_concurrent(async |accessor| {
        let mut serving = Serving::new(accessor, &service, &place, &progress);
        poll_fn(|cx| serving.poll(cx)).await
    });
    let ended = watch(served, &progress).await;
    if let Err(error) = ended {
        tracing::error!(error = %chain(&error), "an instance ended with an error; its requests are answered 500");
    }
    // The memory goes back before the place does: a successor must find its slot free.
    drop(store);
    drop(place);
}

/// Drives an instance from outside of its event loop, where its deadlines hold even while the guest computes.
async fn watch(
    served: impl Future<Output = wasmtime::Result<wasmtime::Result<()>>>,
    progress: &Progress,
) -> wasmtime::Result<()> {
    let mut served = pin!(served);
    let mut checks = tokio::time::interval(progress.check_interval());
    checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    poll_fn(|cx| {
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            return Poll::Ready(ended.flatten());
        }
        while checks.poll_tick(cx).is_ready() {
            match progress.check(Instant::now()) {
                Verdict::Stay => {}
                Verdict::EndIdle => return Poll::Ready(Ok(())),
                Verdict::EndStuck => {
                    let error = wasmtime::format_err!("the guest took too long");
                    return Poll::Ready(Err(error));
                }
            }
        }
        if progress.yielded.swap(false, Relaxed) {
            return Poll::Pending;
        }
        // Now the guest waits for something. If it was not known to, the loop may take another request.
        if !progress.guest_waits.swap(true, Relaxed) {
            return served.as_mut().poll(cx).map(Result::flatten);
        }
        Poll::Pending
    })
    .await
}

/// What the watcher outside of the event loop knows of what goes on inside.
struct Progress {
    policy: ReusePolicy,
    phase: Mutex<Phase>,
    /// The guest has only paused: it would go on computing at once.
    yielded: Arc<AtomicBool>,
    /// Set by the watcher: all that the guest does waits for something.
    guest_waits: AtomicBool,
    /// The instance takes no more requests.
    retired: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Nothing to do since then.
    Idle(Instant),
    /// Requests without response; when the oldest and the newest of them began.
    Requests { oldest: Instant, newest: Instant },
    /// All requests have their response; the guest goes on since then.
    AfterResponse(Instant),
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stay,
    EndIdle,
    EndStuck,
}

impl Progress {
    fn new(policy: ReusePolicy, yielded: Arc<AtomicBool>) -> Self {
        Self {
            policy,
            yielded,
            phase: Mutex::new(Phase::Idle(Instant::now())),
            guest_waits: AtomicBool::new(true),
            retired: AtomicBool::new(false),
        }
    }

    /// Checks are cheap but not free: an idle instance may live up to twice as long as it should.
    fn check_interval(&self) -> Duration {
        self.policy.idle.min(self.policy.request_max).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    fn check(&self, now: Instant) -> Verdict {
        let since = |then: Instant| now.saturating_duration_since(then);
        match self.phase() {
            Phase::Idle(start) if since(start) >= self.policy.idle => Verdict::EndIdle,
            // The client of even the newest request has been told that it took too long.
            Phase::Requests { newest, .. } if since(newest) > self.policy.request_max => Verdict::EndStuck,
            Phase::Requests { oldest, .. } if since(oldest) > self.policy.request_max => {
                // One request is stuck, others are not: let those finish and begin no new ones.
                self.retired.store(true, Relaxed);
                Verdict::Stay
            }
            Phase::AfterResponse(start)
                if self.retired.load(Relaxed) && since(start) > limits::AFTER_RESPONSE_MAX =>
            {
                Verdict::EndStuck
            }
            _ => Verdict::Stay,
        }
    }

    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

/// One request in hand: resolves to the time at which it began, once its response is there.
type Running<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<Instant>> + Send + 'a>>;

/// The part that lives inside of the instance's event loop.
struct Serving<'a> {
    accessor: &'a Accessor<GuestState>,
    service: &'a Proxy,
    place: &'a Place,
    progress: &'a Progress,
    running: FuturesUnordered<Running<'a>>,
    /// When the requests in hand began, the oldest first.
    starts: Vec<Instant>,
    accepted: usize,
}

impl<'a> Serving<'a> {
    fn new(
        accessor: &'a Accessor<GuestState>,
        service: &'a Proxy,
        place: &'a Place,
        progress: &'a Progress,
    ) -> Self {
        Self {
            accessor,
            service,
            place,
            progress,
            running: FuturesUnordered::new(),
            starts: Vec::new(),
            accepted: 0,
        }
    }

    /// Runs until the instance should end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<wasmtime::Result<()>> {
        loop {
            while let Poll::Ready(Some(ended)) = self.running.poll_next_unpin(cx) {
                self.finish(ended?);
            }
            if !self.may_accept(cx) {
                self.place.unpark();
                break;
            }
            match self.place.take_or_park(cx.waker()) {
                Some(job) => self.start(job),
                None => break,
            }
        }
        // The guest may have promised to go on after a response: it is let to.
        if !self.running.is_empty() || self.accessor.poll_no_interesting_tasks(cx).is_pending() {
            return Poll::Pending;
        }
        if self.progress.retired.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        if !matches!(self.progress.phase(), Phase::Idle(_)) {
            self.progress.set_phase(Phase::Idle(Instant::now()));
        }
        Poll::Pending
    }

    fn may_accept(&mut self, cx: &mut Context<'_>) -> bool {
        let policy = &self.progress.policy;
        if self.accepted >= policy.requests_max {
            self.progress.retired.store(true, Relaxed);
        }
        !self.progress.retired.load(Relaxed)
            && self.running.len() < policy.concurrency_max
            && (self.running.is_empty() || self.progress.guest_waits.load(Relaxed))
            && self.accessor.poll_ready_for_concurrent_call(self.entry(), cx).is_ready()
    }

    fn start(&mut self, job: Job) {
        // Until the watcher has seen it wait, the guest computes.
        self.progress.guest_waits.store(false, Relaxed);
        self.accepted += 1;
        let start = Instant::now();
        self.starts.push(start);
        self.note_starts();
        let accessor = self.accessor;
        let prepared = accessor.with(|mut access| {
            let store = access.as_context_mut();
            Prepared::new(store, self.service, job.request, GuestState::http, job.reply)
        });
        self.running.push(Box::pin(async move {
            // Time limits are the server's and the watcher's: this request ends with its response.
            prepared?.run(accessor, pending()).await?;
            Ok(start)
        }));
    }

    fn finish(&mut self, start: Instant) {
        if let Some(index) = self.starts.iter().position(|other| *other == start) {
            self.starts.remove(index);
        }
        self.note_starts();
    }

    fn note_starts(&self) {
        let phase = match (self.starts.first(), self.starts.last()) {
            (Some(&oldest), Some(&newest)) => Phase::Requests { oldest, newest },
            _ => Phase::AfterResponse(Instant::now()),
        };
        self.progress.set_phase(phase);
    }

    /// The component's exported function.
    fn entry(&self) -> Func {
        match self.service {
            Proxy::P3(service) => *service.wasi_http_handler().func_handle().func(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Phase, Progress, Verdict};
    use crate::instance::ReusePolicy;
    use crate::limits;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    const IDLE: Duration = Duration::from_secs(1);
    const REQUEST: Duration = Duration::from_secs(30);

    fn progress(phase: Phase) -> Progress {
        let policy = ReusePolicy {
            instances_max: 1,
            requests_max: 1,
            concurrency_max: 1,
            queue_max: 1,
            idle: IDLE,
            request_max: REQUEST,
        };
        let progress = Progress::new(policy, Arc::new(AtomicBool::new(false)));
        progress.set_phase(phase);
        progress
    }

    const AFTER: Duration = Duration::from_millis(1);

    #[test]
    fn an_idle_instance_ends_once_its_time_is_over() {
        let start = Instant::now();
        let progress = progress(Phase::Idle(start));
        assert_eq!(progress.check(start + IDLE - AFTER), Verdict::Stay);
        assert_eq!(progress.check(start + IDLE), Verdict::EndIdle);
    }

    #[test]
    fn an_instance_with_one_stuck_request_takes_no_more_but_finishes_the_others() {
        let oldest = Instant::now();
        let newest = oldest + REQUEST;
        let progress = progress(Phase::Requests { oldest, newest });
        assert_eq!(progress.check(newest), Verdict::Stay);
        assert!(!progress.retired.load(Relaxed));
        assert_eq!(progress.check(newest + AFTER), Verdict::Stay);
        assert!(progress.retired.load(Relaxed));
        assert_eq!(progress.check(newest + REQUEST + AFTER), Verdict::EndStuck);
    }

    #[test]
    fn work_after_the_response_is_limited_only_in_an_instance_that_takes_no_more_requests() {
        let start = Instant::now();
        let progress = progress(Phase::AfterResponse(start));
        let late = start + limits::AFTER_RESPONSE_MAX + AFTER;
        assert_eq!(progress.check(late), Verdict::Stay);
        progress.retired.store(true, Relaxed);
        assert_eq!(progress.check(start + limits::AFTER_RESPONSE_MAX), Verdict::Stay);
        assert_eq!(progress.check(late), Verdict::EndStuck);
    }
}
