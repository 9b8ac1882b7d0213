//! A shard's pool of instances: who answers a request, how often an instance is reused, and when it ends.
//!
//! Each instance is one task that serves up to `concurrency_max` requests at once from one queue. The instance that
//! waited last is woken first, so that few instances stay warm and the others expire.
//! Invariant: at most `instances_max` instances and `queue_max` waiting requests exist; a request in the queue is
//! always seen by an instance that is waiting, starting, or will look at the queue before it waits or ends.
//! It must not know of sockets or HTTP connections.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures::channel::oneshot;
use wasmtime_wasi_http::handler::{Request, Response};

use crate::engine::{Instance, Template, chain};
use crate::guest::{Grants, GuestState};
use crate::outbound_client::OutboundClient;
use crate::worker;

/// How instances are reused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReusePolicy {
    /// Instances that exist at once.
    pub(crate) instances_max: usize,
    /// Requests that one instance answers before it ends.
    pub(crate) requests_max: usize,
    /// Requests that one instance has in hand at once.
    pub(crate) concurrency_max: usize,
    /// Requests that wait for an instance.
    pub(crate) queue_max: usize,
    /// How long an instance without work is kept.
    pub(crate) idle: Duration,
    /// How long a request may take. An instance whose requests have all taken longer is ended.
    pub(crate) request_max: Duration,
}

/// Why a request got no answer from the component.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandleError {
    /// Too many requests wait already.
    #[error("too many requests are waiting for an instance")]
    Overloaded,
    /// The instance trapped (or was ended) while it had the request.
    #[error("the instance that had the request ended")]
    InstanceEnded,
    /// No answer came before the deadline of whoever asked.
    #[error("the component did not answer in time")]
    TimedOut,
    /// The component failed on this request.
    #[error("the component failed: {0}")]
    Guest(String),
}

/// The pool. Clones share it.
#[derive(Clone)]
pub(crate) struct InstancePool {
    shared: Arc<Shared>,
}

impl InstancePool {
    /// A pool without instances: they are made as requests come.
    pub(crate) fn new(
        template: Arc<Template>,
        grants: Arc<Grants>,
        outbound: OutboundClient,
        policy: ReusePolicy,
    ) -> Self {
        let queue = Mutex::new(Queue::default());
        Self { shared: Arc::new(Shared { template, grants, outbound, policy, queue }) }
    }

    /// Has the component answer a request. Returns with the response's head; its body follows as a stream.
    ///
    /// When the returned future is dropped, a request that an instance has begun with goes on, as in Spin.
    ///
    /// # Errors
    /// [`HandleError`].
    pub(crate) async fn handle(&self, request: Request) -> Result<Response, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.shared.submit(Job { request, reply })?;
        match answer.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(HandleError::Guest(chain(&error))),
            Err(oneshot::Canceled) => Err(HandleError::InstanceEnded),
        }
    }
}

/// A request and who waits for its answer.
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<wasmtime::Result<Response>>,
}

/// What the instances share.
pub(crate) struct Shared {
    template: Arc<Template>,
    grants: Arc<Grants>,
    outbound: OutboundClient,
    pub(crate) policy: ReusePolicy,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// Instances that would take a request, the one that waits for the shortest time last.
    parked: Vec<(WorkerId, Waker)>,
    /// Instances that exist, with those that are being made.
    live: usize,
    next_id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WorkerId(u64);

impl Shared {
    /// Makes an instance that has no request yet.
    pub(crate) async fn instantiate(&self) -> wasmtime::Result<Instance> {
        let state = GuestState::new(Arc::clone(&self.grants), self.outbound.clone());
        self.template.instantiate(state).await
    }

    fn submit(self: &Arc<Self>, job: Job) -> Result<(), HandleError> {
        let mut queue = self.lock();
        if queue.waiting.len() >= self.policy.queue_max {
            return Err(HandleError::Overloaded);
        }
        queue.waiting.push_back(job);
        self.attend(&mut queue);
        Ok(())
    }

    /// Sees to it that somebody looks at the queue: an instance that waits, else a new one. If there can be no
    /// new one, those that are busy look at the queue when they have a moment.
    fn attend(self: &Arc<Self>, queue: &mut Queue) {
        if queue.waiting.is_empty() {
            return;
        }
        if let Some((_, waker)) = queue.parked.last() {
            waker.wake_by_ref();
        } else if queue.live < self.policy.instances_max {
            queue.live += 1;
            queue.next_id += 1;
            let place = Place { shared: Arc::clone(self), id: WorkerId(queue.next_id) };
            tokio::spawn(worker::run(place));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that holds the lock can panic halfway through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An instance's place in the pool. Dropping it, after the instance itself, frees the place.
pub(crate) struct Place {
    shared: Arc<Shared>,
    id: WorkerId,
}

impl Place {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The next request, if there is one that is still wanted. Otherwise the instance is woken when there is.
    pub(crate) fn take_or_park(&self, waker: &Waker) -> Option<Job> {
        let mut queue = self.shared.lock();
        queue.unpark(self.id);
        while let Some(job) = queue.waiting.pop_front() {
            if !job.reply.is_canceled() {
                // This instance may be busy from now on: the next request in the queue is somebody else's.
                self.shared.attend(&mut queue);
                return Some(job);
            }
        }
        queue.parked.push((self.id, waker.clone()));
        None
    }

    /// Takes no more requests until the next [`Self::take_or_park`].
    pub(crate) fn unpark(&self) {
        let mut queue = self.shared.lock();
        if queue.unpark(self.id) {
            // It may have been woken for a request that it will not take now.
            self.shared.attend(&mut queue);
        }
    }

    /// Fails one waiting request, whose turn it would have been in an instance that could not be made.
    pub(crate) fn fail_one(&self, error: wasmtime::Error) {
        let job = self.shared.lock().waiting.pop_front();
        if let Some(job) = job {
            // If nobody waits for the answer any more, nobody needs to know.
            drop(job.reply.send(Err(error)));
        }
    }
}

impl Queue {
    fn unpark(&mut self, id: WorkerId) -> bool {
        let parked = self.parked.len();
        self.parked.retain(|(other, _)| *other != id);
        self.parked.len() < parked
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.unpark(self.id);
        queue.live -= 1;
        self.shared.attend(&mut queue);
    }
}
