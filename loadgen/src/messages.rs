//! What the four services log: their messages and labels.
//!
//! Data only: how often each occurs is [`crate::corpus`]'s to decide. A change here changes every corpus, and so the
//! figures that were measured with it; a test of `corpus` holds the first records of one.

/// The severities, most verbose first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Detail for the developer.
    Debug,
    /// The ordinary course of things.
    Info,
    /// Unusual, handled.
    Warn,
    /// Something did not work.
    Error,
}

impl Level {
    /// The level as a record spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// One message and the level it is logged at.
pub(crate) struct Message {
    /// The level.
    pub(crate) level: Level,
    /// The text, not yet escaped for JSON.
    pub(crate) text: &'static str,
}

/// A label that a service sets, and the values it takes.
pub(crate) struct Label {
    /// The label's name.
    pub(crate) name: &'static str,
    /// Its values, all equally frequent.
    pub(crate) values: &'static [&'static str],
}

/// A service that logs.
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it says, every level at least once.
    pub(crate) messages: [Message; 24],
    /// What it labels a record with, in the order of the names.
    pub(crate) labels: &'static [Label],
}

const REGION: Label =
    Label { name: "region", values: &["ap-southeast-2", "eu-central-1", "eu-west-1", "us-east-1"] };

const fn debug(text: &'static str) -> Message {
    Message { level: Level::Debug, text }
}

const fn info(text: &'static str) -> Message {
    Message { level: Level::Info, text }
}

const fn warn(text: &'static str) -> Message {
    Message { level: Level::Warn, text }
}

const fn error(text: &'static str) -> Message {
    Message { level: Level::Error, text }
}

/// The services, all equally talkative.
pub(crate) const SERVICES: [Service; 4] = [
    Service {
        name: "focus_allocator",
        messages: [
            debug("scoring candidate slots for the next planning window"),
            debug("calendar cache hit, skipping the upstream fetch"),
            debug("constraint solver finished after 14 iterations"),
            debug("preference vector loaded from the snapshot store"),
            info("focus block allocated"),
            info("focus block moved to avoid a meeting"),
            info("focus block released by its owner"),
            info("allocation run started for the morning shift"),
            info("allocation run finished, every request placed"),
            info("weekly capacity recalculated"),
            info("calendar synchronised, 3 changed entries"),
            info("working hours updated, replanning the affected days"),
            info("two adjacent blocks merged into one"),
            info("deep work goal reached for the week"),
            info("reservation confirmed by the calendar provider"),
            warn("no slot of the requested length today, offering tomorrow"),
            warn("calendar provider answered slowly, using the cached view"),
            warn("overlapping reservations found, keeping the older one"),
            warn("allocation queue above 80% of its capacity"),
            warn("time zone of the calendar differs from the profile"),
            error("allocation failed: calendar provider returned 502"),
            error("optimistic lock lost three times, giving up on this block"),
            error("could not write the plan: statement timeout after 5000 ms"),
            error("constraint solver found no feasible plan for the week"),
        ],
        labels: &[
            Label { name: "host", values: &["focus-0", "focus-1", "focus-2", "focus-3"] },
            Label { name: "queue", values: &["background", "batch", "interactive"] },
            REGION,
            Label { name: "version", values: &["2.14.0", "2.14.1", "2.15.0-rc.1"] },
        ],
    },
    Service {
        name: "event_creator",
        messages: [
            debug("request body validated against schema event.v3"),
            debug("deduplication window consulted, no earlier event"),
            debug("serialised event to 412 bytes of protobuf"),
            debug("partition key derived from the organiser"),
            info("event created"),
            info("event updated"),
            info("event cancelled by its organiser"),
            info("recurring series expanded into 52 occurrences"),
            info("invitation list stored, 8 attendees"),
            info("attendee accepted the invitation"),
            info("attendee declined the invitation"),
            info("event published to topic calendar.events"),
            info("attachment \"agenda.pdf\" linked to the event"),
            info("import of an iCalendar file finished"),
            info("webhook delivered to the subscriber"),
            warn("event starts in the past, accepted with a notice"),
            warn("room already booked, event created without a room"),
            warn("webhook subscriber answered 429, backing off"),
            warn("unknown property X-ORIGIN in the imported calendar, ignored"),
            warn("outbox holds more than 1000 unpublished events"),
            error("event rejected: end time lies before start time"),
            error("publish to topic calendar.events failed: broker not available"),
            error("duplicate key value violates unique constraint \"events_uid_key\""),
            error("webhook dropped after 10 attempts: connection refused"),
        ],
        labels: &[
            Label { name: "host", values: &["events-0", "events-1", "events-2", "events-3"] },
            REGION,
            Label { name: "source", values: &["api", "calendar_sync", "webhook"] },
            Label { name: "version", values: &["5.2.3", "5.3.0", "5.3.1"] },
        ],
    },
    Service {
        name: "auth_service",
        messages: [
            debug("token cache miss, asking the introspection endpoint"),
            debug("signing key 2024-07 selected for RS256"),
            debug("password hash verified with argon2id"),
            debug("rate limit bucket refilled"),
            info("login succeeded"),
            info("logout completed, session revoked"),
            info("access token issued, valid for 900 s"),
            info("refresh token rotated"),
            info("second factor verified"),
            info("password changed by its owner"),
            info("account created, verification mail queued"),
            info("single sign-on assertion accepted"),
            info("session extended after activity"),
            info("signing keys reloaded from the vault"),
            info("role \"editor\" granted by an administrator"),
            warn("login failed: wrong password"),
            warn("login failed: unknown account"),
            warn("rate limit exceeded for this address"),
            warn("refresh token reused, whole family revoked"),
            warn("clock skew of 4 s against the identity provider"),
            error("identity provider not reachable: connection timed out"),
            error("token signature invalid: no key with this id"),
            error("session store unavailable, login refused"),
            error("assertion rejected: audience does not match"),
        ],
        labels: &[
            Label { name: "auth_method", values: &["oauth", "password", "saml"] },
            Label { name: "host", values: &["auth-0", "auth-1", "auth-2", "auth-3"] },
            REGION,
            Label { name: "version", values: &["1.41.7", "1.42.0", "1.42.1"] },
        ],
    },
    Service {
        name: "notification_service",
        messages: [
            debug("template \"weekly_digest\" rendered from the cache"),
            debug("device token looked up in shard 3"),
            debug("quiet hours evaluated, delivery allowed"),
            debug("digest window still open, message held back"),
            info("email handed to the relay"),
            info("push notification accepted by the gateway"),
            info("text message sent"),
            info("in-app notification stored"),
            info("notification read by its recipient"),
            info("digest assembled from 6 notifications"),
            info("recipient unsubscribed from marketing mail"),
            info("delivery receipt received from the carrier"),
            info("preferences saved for the recipient"),
            info("campaign \"Frühjahr\" finished, no bounces"),
            info("device token registered"),
            warn("soft bounce: mailbox full, retrying in 15 min"),
            warn("push gateway asked to slow down, reducing the rate"),
            warn("device token expired, removed from the profile"),
            warn("delivery delayed by quiet hours of the recipient"),
            warn("template has no translation for pt-BR, falling back to en"),
            error("hard bounce: 550 5.1.1 no such user"),
            error("relay refused the connection: too many connections"),
            error("template \"invoice\" failed to render: missing variable total"),
            error("text message rejected by the carrier: invalid sender id"),
        ],
        labels: &[
            Label { name: "channel", values: &["email", "in_app", "push", "sms"] },
            Label { name: "host", values: &["notify-0", "notify-1", "notify-2", "notify-3"] },
            REGION,
            Label { name: "version", values: &["3.8.0", "3.8.2", "3.9.0"] },
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_message_is_said_twice_by_any_service() {
        let texts: BTreeSet<_> = SERVICES.iter().flat_map(|s| &s.messages).map(|m| m.text).collect();
        assert_eq!(texts.len(), SERVICES.len() * 24);
    }

    #[test]
    fn every_service_has_a_message_of_every_level() {
        for service in &SERVICES {
            for level in [Level::Debug, Level::Info, Level::Warn, Level::Error] {
                assert!(service.messages.iter().any(|m| m.level == level), "{} {level:?}", service.name);
            }
        }
    }

    #[test]
    fn labels_stand_in_the_order_of_their_names() {
        for service in &SERVICES {
            assert!(service.labels.is_sorted_by_key(|label| label.name), "{}", service.name);
        }
    }
}
