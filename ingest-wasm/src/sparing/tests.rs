//! The time as it is told between waits and after them.

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::join;

use super::*;
use crate::config::tests::two_nodes;
use crate::fake::{Fake, Reaction, others_turn};
use crate::limits;

const TICK: Duration = Duration::from_millis(1);

/// Storage whose clock moves by a tick with every call.
fn ticking() -> Fake<'static> {
    let fake = Fake::new(|_, _| Reaction::stored(1));
    fake.call_time.set(TICK);
    fake
}

/// Makes a call, and says what time it is then.
fn time_after<T>(fake: &Fake<'_>, call: impl AsyncFnOnce(&Sparing<'_, Fake<'_>>) -> T) -> Duration {
    let time = KnownTime::new();
    let sparing = Sparing::new(fake, &time);
    sparing.elapsed();
    block_on(call(&sparing));
    let told = sparing.elapsed();
    assert_eq!(told, fake.elapsed.get());
    told
}

#[test]
fn the_clock_is_asked_once_as_long_as_nothing_is_awaited() {
    let (fake, time) = (ticking(), KnownTime::new());
    let sparing = Sparing::new(&fake, &time);
    let told: Vec<_> = (0..10).map(|_| sparing.elapsed()).collect();
    assert_eq!((told, fake.clock_readings.get()), (vec![Duration::ZERO; 10], 1));
}

#[test]
fn time_has_passed_when_a_call_of_the_runtime_has_returned_even_if_nobody_was_resumed() {
    let fake = ticking();
    let call = || Call {
        path_and_query: "/v1/storage?partition=0".to_owned(),
        headers: Vec::new(),
        body: None,
        time_max: limits::APPEND_TIME_MAX,
        rest_time_max: limits::APPEND_REST_TIME_MAX,
    };
    let (config, key) = (two_nodes(), || "k".to_owned());
    let node = &config.storage_nodes[0];
    let mut passed = Duration::ZERO;
    let mut is_later = |told: Duration| told >= std::mem::replace(&mut passed, told) + TICK;
    assert!(is_later(time_after(&fake, async |runtime| runtime.send(node, call()).await.map(drop))));
    assert!(is_later(time_after(&fake, async |runtime| runtime.pause(TICK).await)));
    assert!(is_later(time_after(&fake, async |runtime| runtime.set(key(), Vec::new()).await)));
    assert!(is_later(time_after(&fake, async |runtime| runtime.get(key()).await)));
    assert!(is_later(time_after(&fake, async |runtime| runtime.keys().await)));
    assert!(is_later(time_after(&fake, async |runtime| runtime.delete(key()).await)));
}

#[test]
fn time_has_passed_for_every_task_when_one_of_them_is_resumed() {
    let (fake, time) = (ticking(), KnownTime::new());
    let sparing = Sparing::new(&fake, &time);
    // One that waits for something that is no call: a body.
    let waiting = sparing.run(async {
        let before = sparing.elapsed();
        others_turn().await;
        (before, sparing.elapsed())
    });
    let coming = sparing.run(async {
        fake.elapsed.set(fake.elapsed.get() + TICK);
        sparing.elapsed()
    });
    assert_eq!(block_on(join(waiting, coming)), ((Duration::ZERO, TICK), TICK));
    // Nothing is kept for one that begins later.
    fake.elapsed.set(TICK * 9);
    let begun = sparing.run(async { sparing.elapsed() });
    assert_eq!(begun.now_or_never(), Some(TICK * 9));
}
