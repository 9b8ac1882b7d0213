//! Regular expressions of a query: compiled within limits, and searched for literals that every match contains.
//!
//! Invariant: a text that matches contains all of a pattern's required literals. Where it is not certain, a literal is
//! left out.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::probe::{Edge, Probe};
use super::run::Run;
use crate::index;

/// Bytes of a pattern.
const PATTERN_BYTES_MAX: usize = 1024;

/// Bytes of a compiled pattern.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Bytes of the states that a pattern's search may keep.
const STATES_BYTES_MAX: usize = 2 << 20;

/// Groups within one another.
const NESTING_MAX: u32 = 64;

/// Texts of one pattern that may be looked for.
const LITERALS_MAX: usize = 8;

/// Alternatives that are asked for one by one.
const ALTERNATIVES_MAX: usize = 32;

/// A pattern, compiled.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// What every match contains.
    pub(super) probe: Probe,
    /// Texts that every match contains just so.
    pub(super) literals: Vec<String>,
    /// The longest run of characters of one kind that every match contains.
    pub(super) run: Option<Box<Run>>,
}

impl Pattern {
    /// A pattern that matches anywhere in a text.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let regex = compile(pattern, pattern)?;
        let hir = regex_syntax::ParserBuilder::new()
            .nest_limit(NESTING_MAX)
            .utf8(false)
            .build()
            .parse(pattern)
            .map_err(|error| last_line(&error.to_string()))?;
        let mut required = Required::default();
        required.add(&hir, 0);
        required.end_run(Edge::Open);
        Ok(Self {
            regex,
            probe: required.probe,
            literals: required.literals,
            run: required.class_run.map(Box::new),
        })
    }

    /// A pattern that matches whole texts.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn anchored(pattern: &str) -> Result<Self, String> {
        // By itself first: what is wrong with it is to be told in its own words.
        compile(pattern, pattern)?;
        let regex = compile(pattern, &format!(r"\A(?:{pattern})\z"))?;
        Ok(Self { regex, probe: Probe::default(), literals: Vec::new(), run: None })
    }

    /// Whether `text` matches.
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

fn compile(given: &str, pattern: &str) -> Result<Regex, String> {
    if given.len() > PATTERN_BYTES_MAX {
        return Err(format!("a regular expression has at most {PATTERN_BYTES_MAX} bytes"));
    }
    RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(STATES_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the regular expression is too expensive".to_owned(),
            other => format!("the regular expression is not understood: {}", last_line(&other.to_string())),
        })
}

/// What is wrong, without the drawing of where.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Literals that every match contains, found from left to right.
struct Required {
    probe: Probe,
    literals: Vec<String>,
    class_run: Option<Run>,
    /// Characters one after another that every match contains, folded.
    run: String,
    /// Whether the run is contained just so, and not in another case only.
    is_exact: bool,
    left: Edge,
}

impl Default for Required {
    fn default() -> Self {
        Self {
            probe: Probe::default(),
            literals: Vec::new(),
            class_run: None,
            run: String::new(),
            is_exact: true,
            left: Edge::Open,
        }
    }
}

impl Required {
    fn add(&mut self, hir: &Hir, depth: u32) {
        if depth > NESTING_MAX {
            return self.end_run(Edge::Open);
        }
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => self.run.push_str(text),
                Err(_) => self.end_run(Edge::Open),
            },
            HirKind::Class(class) => match one_letter(class) {
                Some(letter) => {
                    self.run.push(letter);
                    self.is_exact = false;
                }
                None => self.end_run(Edge::Open),
            },
            HirKind::Look(Look::Start) if self.run.is_empty() => self.left = Edge::Closed,
            HirKind::Look(Look::End) => self.end_run(Edge::Closed),
            // These take no room: what follows follows.
            HirKind::Look(_) => {}
            HirKind::Capture(capture) => self.add(&capture.sub, depth + 1),
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.add(part, depth + 1)),
            HirKind::Repetition(repetition) => {
                self.end_run(Edge::Open);
                if let HirKind::Class(class) = repetition.sub.kind() {
                    self.add_class_run(class, repetition.min as usize);
                }
                if repetition.min > 0 {
                    self.add(&repetition.sub, depth + 1);
                    self.end_run(Edge::Open);
                }
            }
            HirKind::Alternation(alternatives) => {
                self.end_run(Edge::Open);
                self.add_any(alternatives, depth + 1);
            }
        }
    }

    /// Keeps the longest.
    fn add_class_run(&mut self, class: &Class, length: usize) {
        if self.class_run.as_ref().is_none_or(|known| known.length() < length) {
            self.class_run = Run::of_class(class, length).or(self.class_run.take());
        }
    }

    fn add_any(&mut self, alternatives: &[Hir], depth: u32) {
        if alternatives.len() > ALTERNATIVES_MAX {
            return;
        }
        let of = |hir: &Hir| {
            let mut required = Self::default();
            required.add(hir, depth);
            required.end_run(Edge::Open);
            required.probe
        };
        self.probe.and_any(alternatives.iter().map(of).collect());
    }

    fn end_run(&mut self, right: Edge) {
        let run = std::mem::take(&mut self.run);
        if !run.is_empty() {
            self.probe.and(Probe::of_literal(&run, self.left, right));
            if self.is_exact && self.literals.len() < LITERALS_MAX {
                self.literals.push(run);
            }
        }
        (self.is_exact, self.left) = (true, Edge::Open);
    }
}

/// The letter whose cases are all that a class has.
fn one_letter(class: &Class) -> Option<char> {
    let fold = |c: u32| char::from_u32(c).map(index::fold_char);
    let all_same = |chars: &mut dyn Iterator<Item = u32>| {
        let first = fold(chars.next()?)?;
        chars.take(8).all(|c| fold(c) == Some(first)).then_some(first)
    };
    match class {
        Class::Unicode(class) => {
            let count: usize = class.iter().map(|range| range.len()).sum();
            let mut chars = class.iter().flat_map(|range| range.start() as u32..=range.end() as u32);
            if count <= 8 { all_same(&mut chars) } else { None }
        }
        Class::Bytes(class) => {
            let count: usize = class.iter().map(|range| range.len()).sum();
            let is_ascii = class.is_ascii();
            let mut chars = class.iter().flat_map(|range| range.start().into()..=range.end().into());
            if is_ascii && count <= 8 { all_same(&mut chars) } else { None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe_of(pattern: &str) -> Probe {
        Pattern::new(pattern).unwrap().probe
    }

    fn open(literal: &str) -> Probe {
        Probe::of_literal(literal, Edge::Open, Edge::Open)
    }

    fn all(literals: &[&str]) -> Probe {
        let mut probe = Probe::default();
        literals.iter().for_each(|literal| probe.and(open(literal)));
        probe
    }

    #[test]
    fn literals_are_found_wherever_every_match_has_them() {
        assert_eq!(probe_of("user=4242"), open("user=4242"));
        assert_eq!(probe_of(r"user=4\d+ done"), all(&["user=4", " done"]));
        assert_eq!(probe_of("(timed) (out)"), open("timed out"));
        assert_eq!(probe_of("ab+cdef"), all(&["a", "b", "cdef"]));
        assert_eq!(probe_of("(?i)Timeout"), open("timeout"));
        assert_eq!(probe_of("(?i)kiss"), open("kiss"));
        assert_eq!(probe_of(r"\d+"), Probe::default());
        assert_eq!(probe_of("a*"), Probe::default());
        assert_eq!(probe_of("(?:long)?"), Probe::default());
        assert_eq!(probe_of("^fatal$"), Probe::of_literal("fatal", Edge::Closed, Edge::Closed));
        let mut either = Probe::default();
        either.and_any(vec![open("timeout"), open("refused")]);
        assert_eq!(probe_of("timeout|refused"), either);
        assert_eq!(probe_of(r"timeout|\d"), Probe::default());
    }

    #[test]
    fn the_literals_to_look_for_are_those_that_are_there_just_so() {
        for (pattern, literals) in [
            ("ab.cdef.g", &["ab", "cdef", "g"][..]),
            ("(?i)abc", &[]),
            ("a(?i)bcd(?-i)e.fgh", &["fgh"]),
            ("x|y", &[]),
            ("Frühjahr", &["Frühjahr"]),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().literals, literals, "{pattern}");
        }
    }

    #[test]
    fn expensive_and_broken_patterns_are_refused_in_words() {
        for (pattern, reason) in [
            ("(", "unclosed group"),
            (r"\w{1000}{1000}", "too expensive"),
            ("(?:a{1000}){1000}", "too expensive"),
            (&"a".repeat(2000), "at most"),
            (&("(".repeat(500) + &")".repeat(500)), "nest"),
            (r"(a)\1", "backreferences"),
        ] {
            let error = Pattern::new(pattern).unwrap_err();
            assert!(error.contains(reason), "{pattern}: {error}");
            assert!(!error.contains('\n'));
        }
        assert!(Pattern::anchored("(?x) a # )").is_err());
    }

    #[test]
    fn an_anchored_pattern_matches_whole_texts() {
        let pattern = Pattern::anchored("a|bc").unwrap();
        let matching: Vec<&str> = ["a", "bc", "ab", "xbc", "a\n", ""]
            .into_iter()
            .filter(|text| pattern.is_match(text.as_bytes()))
            .collect();
        assert_eq!(matching, ["a", "bc"]);
    }
}
