//! Which records a query wants, and whether a line is one of them.
//!
//! Invariant: a record passes when all conditions hold, each on the record as it is meant: whatever escapes JSON has,
//! and whatever order its fields are in. What an index may leave out follows from these and from nothing else.

use std::borrow::Cow;

use memchr::memmem::Finder;
use model::Partition;

use super::fan_out::Share;
use super::needle::Needle;
use super::pattern::Pattern;
use super::probe::{Edge, Probe};
use super::run::Run;
use crate::index::{self, Fields, Text};

/// What records have to be to be found.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Not older than this, Unix milliseconds.
    pub from_ms: u64,
    /// Older than this, Unix milliseconds.
    pub to_ms: u64,
    /// Of one of these services; empty: of any.
    pub services: Vec<String>,
    /// Of one of these levels, folded to one case; empty: of any or none.
    pub levels: Vec<String>,
    /// Only in this partition.
    pub partition: Option<Partition>,
    /// In which of its partitions the node that is asked looks.
    pub share: Share,
    pub(super) labels: Vec<LabelFilter>,
    pub(super) lines: Vec<LineFilter>,
}

/// A condition on one label.
#[derive(Clone, Debug)]
pub(super) struct LabelFilter {
    pub(super) name: String,
    pub(super) wanted: LabelValue,
    pub(super) is_negated: bool,
}

/// The values of a label that a condition holds for.
#[derive(Clone, Debug)]
pub(super) enum LabelValue {
    Equal(Box<Needle>),
    Matching(Pattern),
}

/// A condition on the message.
#[derive(Clone, Debug)]
pub(super) struct LineFilter {
    pub(super) wanted: LineContent,
    pub(super) is_negated: bool,
}

/// What a message has to have.
#[derive(Clone, Debug)]
pub(super) enum LineContent {
    /// A text, just so.
    Literal(Needle),
    /// A text, in whatever case; folded.
    Folded(String, Finder<'static>),
    /// A text that is no part of a longer word.
    Word(Word),
    /// A match.
    Match(Pattern, Vec<Needle>),
}

/// A text that is no part of a longer word.
#[derive(Clone, Debug)]
pub(super) struct Word {
    needle: Needle,
    begins_with_word: bool,
    ends_with_word: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            from_ms: 0,
            to_ms: u64::MAX,
            services: Vec::new(),
            levels: Vec::new(),
            partition: None,
            share: Share::All,
            labels: Vec::new(),
            lines: Vec::new(),
        }
    }
}

impl Filter {
    /// The same for a node that looks at this share of its partitions.
    pub fn within(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Whether records of this partition are wanted.
    pub(super) fn wants_partition(&self, partition: Partition) -> bool {
        self.partition.is_none_or(|wanted| wanted == partition) && self.share.contains(partition)
    }

    /// Whether records of this time are wanted.
    pub(super) fn wants_time(&self, timestamp_ms: u64) -> bool {
        (self.from_ms..self.to_ms).contains(&timestamp_ms)
    }

    /// Whether records of some time between these, ends included, are wanted.
    pub(super) fn overlaps(&self, timestamp_min_ms: u64, timestamp_max_ms: u64) -> bool {
        timestamp_min_ms < self.to_ms && self.from_ms <= timestamp_max_ms
    }

    /// Whether records of all times between these, ends included, are wanted.
    pub(super) fn covers(&self, timestamp_min_ms: u64, timestamp_max_ms: u64) -> bool {
        self.from_ms <= timestamp_min_ms && timestamp_max_ms < self.to_ms
    }

    /// Whether records of this service are wanted.
    pub(super) fn wants_service(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|wanted| wanted == service)
    }

    /// Whether records of this level are wanted; the empty one is that of records without.
    pub(super) fn wants_level(&self, level: &str) -> bool {
        self.levels.is_empty()
            || (!level.is_empty() && {
                let folded = index::fold_fully(level);
                self.levels.contains(&folded)
            })
    }

    /// Whether there are conditions on what a record is.
    pub(super) fn is_selective(&self) -> bool {
        !self.services.is_empty()
            || !self.levels.is_empty()
            || self.looks_at_text()
            || (self.from_ms, self.to_ms) != (0, u64::MAX)
    }

    /// Whether most lines have to be looked at: nothing that is asked for can be looked up, or looked for quickly.
    pub(super) fn is_expensive(&self) -> bool {
        self.looks_at_text() && self.needles().is_empty() && self.probe().is_empty()
    }

    /// Whether there is more to a record than its time, service and level.
    pub(super) fn looks_at_text(&self) -> bool {
        !self.labels.is_empty() || !self.lines.is_empty()
    }

    /// Whether its service and level are wanted.
    pub(super) fn passes_names(&self, fields: &Fields<'_>) -> bool {
        let service = || self.services.is_empty() || self.wants_service(&as_text(&fields.service.decode()));
        let level = || {
            self.levels.is_empty()
                || fields.level.is_some_and(|level| self.wants_level(&as_text(&level.decode())))
        };
        service() && level()
    }

    /// Whether its message and labels are wanted.
    pub(super) fn passes_text(&self, fields: &Fields<'_>) -> bool {
        self.passes_message(fields.message) && self.labels.iter().all(|label| label.passes(fields))
    }

    /// Whether its message is wanted.
    pub(super) fn passes_message(&self, message: Text<'_>) -> bool {
        if self.lines.is_empty() {
            return true;
        }
        let message = message.decode();
        self.lines.iter().all(|line| line.passes(&message))
    }

    /// Whether a record's message tells all that its time, service and level do not.
    pub(super) fn is_of_message_alone(&self) -> bool {
        self.labels.is_empty() && !self.lines.is_empty()
    }

    /// What to ask of a block before it is looked at.
    pub(super) fn probe(&self) -> Probe {
        let mut probe = Probe::default();
        if !self.services.is_empty() {
            let keys = self.services.iter().map(|name| index::service_key(name.as_bytes()));
            probe.and_any(keys.map(Probe::of_key).collect());
        }
        for line in self.lines.iter().filter(|line| !line.is_negated) {
            probe.and(line.wanted.probe());
        }
        for label in self.labels.iter().filter(|label| !label.is_negated) {
            // A label that is not there is equal to an empty one.
            if let LabelValue::Equal(value) = &label.wanted
                && value.length() > 0
            {
                let value = value.text().as_bytes();
                probe.and(Probe::of_key(index::label_key(label.name.as_bytes(), value)));
            }
        }
        probe
    }

    /// Texts that every record which passes holds somewhere in its line: to look for one of them is enough.
    pub(super) fn needles(&self) -> Vec<&Needle> {
        let of_lines =
            self.lines.iter().filter(|line| !line.is_negated).flat_map(|line| line.wanted.needles());
        let of_labels =
            self.labels.iter().filter(|label| !label.is_negated).filter_map(|label| match &label.wanted {
                LabelValue::Equal(value) => Some(&**value),
                LabelValue::Matching(_) => None,
            });
        of_lines.chain(of_labels).filter(|needle| needle.length() > 0).collect()
    }

    /// The longest run of characters of one kind that the message of every record which passes holds.
    pub(super) fn run(&self) -> Option<&Run> {
        let matches = self.lines.iter().filter(|line| !line.is_negated);
        let runs = matches.filter_map(|line| match &line.wanted {
            LineContent::Match(pattern, _) => pattern.run.as_deref(),
            _ => None,
        });
        runs.max_by_key(|run| run.length())
    }
}

impl LabelFilter {
    fn passes(&self, fields: &Fields<'_>) -> bool {
        let mut found = Text::default();
        for (name, value) in fields.labels() {
            // Of two labels of one name the last counts, as in most readers of JSON.
            if *name.decode() == *self.name.as_bytes() {
                found = value;
            }
        }
        let value = found.decode();
        let holds = match &self.wanted {
            LabelValue::Equal(wanted) => *value == *wanted.text().as_bytes(),
            LabelValue::Matching(pattern) => pattern.is_match(&value),
        };
        holds != self.is_negated
    }
}

impl LineFilter {
    fn passes(&self, message: &[u8]) -> bool {
        let holds = match &self.wanted {
            LineContent::Literal(needle) => needle.find(message).is_some(),
            LineContent::Folded(_, finder) => {
                let folded = index::fold_fully(&as_text(message));
                finder.find(folded.as_bytes()).is_some()
            }
            LineContent::Word(word) => word.is_in(message),
            LineContent::Match(pattern, _) => pattern.is_match(message),
        };
        holds != self.is_negated
    }
}

impl LineContent {
    /// A text in whatever case.
    pub(super) fn folded(text: &str) -> Self {
        let folded = index::fold_fully(text);
        let finder = Finder::new(&folded).into_owned();
        Self::Folded(folded, finder)
    }

    /// A match of a pattern.
    pub(super) fn matching(pattern: Pattern) -> Self {
        let needles = pattern.literals.iter().map(|literal| Needle::new(literal)).collect();
        Self::Match(pattern, needles)
    }

    fn probe(&self) -> Probe {
        match self {
            Self::Literal(needle) => Probe::of_literal(needle.text(), Edge::Open, Edge::Open),
            Self::Folded(folded, _) => Probe::of_literal(folded, Edge::Open, Edge::Open),
            Self::Word(word) => Probe::of_literal(word.needle.text(), Edge::Closed, Edge::Closed),
            Self::Match(pattern, _) => pattern.probe.clone(),
        }
    }

    fn needles(&self) -> &[Needle] {
        match self {
            Self::Literal(needle) => std::slice::from_ref(needle),
            Self::Word(word) => std::slice::from_ref(&word.needle),
            Self::Folded(..) => &[],
            Self::Match(_, needles) => needles,
        }
    }
}

impl Word {
    /// The word, or the words in this order.
    pub(super) fn new(text: &str) -> Self {
        let is_word = |byte: Option<u8>| byte.is_some_and(index::is_word_byte);
        Self {
            needle: Needle::new(text),
            begins_with_word: is_word(text.bytes().next()),
            ends_with_word: is_word(text.bytes().next_back()),
        }
    }

    fn is_in(&self, message: &[u8]) -> bool {
        let length = self.needle.length();
        let mut from = 0;
        while let Some(found) = message.get(from..).and_then(|rest| self.needle.find(rest)) {
            let at = from + found;
            let is_word = |place: Option<usize>| {
                place.and_then(|place| message.get(place)).is_some_and(|byte| index::is_word_byte(*byte))
            };
            let begins = !self.begins_with_word || !is_word(at.checked_sub(1));
            let ends = !self.ends_with_word || !is_word(Some(at + length));
            if begins && ends {
                return true;
            }
            from = at + 1;
        }
        false
    }
}

/// Stored text is UTF-8; were it not, what can be read of it is compared.
pub(super) fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_no_part_of_a_longer_one() {
        for (word, message, is_in) in [
            ("user", "user=4", true),
            ("user", "users=4 the_user=3", false),
            ("user", "users user", true),
            ("user", "userš", false),
            ("user=4", "user=42 user=4", true),
            ("user=4", "user=42", false),
            ("=4", "user=4", true),
            ("\"a\"", "x\"a\"y", true),
            ("aa", "aaa", false),
        ] {
            assert_eq!(Word::new(word).is_in(message.as_bytes()), is_in, "{word} in {message}");
        }
    }
}
