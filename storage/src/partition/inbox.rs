//! The way to a partition's actor.

use std::sync::mpsc::{SendError, Sender};

use super::message::Message;

/// Where an actor's messages go, in order.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    messages: Sender<Message>,
    /// Told of each message: an actor that has no thread cannot wait for them.
    #[cfg(test)]
    told: std::sync::Arc<tokio::sync::Notify>,
}

impl Inbox {
    pub(super) fn new(messages: Sender<Message>) -> Self {
        Self {
            messages,
            #[cfg(test)]
            told: std::sync::Arc::default(),
        }
    }

    /// Sends a message; an error when the actor is gone.
    pub(super) fn send(&self, message: Message) -> Result<(), SendError<Message>> {
        self.messages.send(message)?;
        #[cfg(test)]
        self.told.notify_one();
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn told(&self) -> std::sync::Arc<tokio::sync::Notify> {
        std::sync::Arc::clone(&self.told)
    }
}
