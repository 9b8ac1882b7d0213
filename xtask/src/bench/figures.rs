//! A figure over several rounds: its median and its best.

use std::time::Duration;

use serde_json::{Value, json};

/// One figure's values, a round each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figure(Vec<f64>);

impl Figure {
    /// The values of `part` in these rounds.
    pub(crate) fn of<R>(rounds: &[R], part: impl Fn(&R) -> f64) -> Self {
        let mut values: Vec<f64> = rounds.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value in the middle (of two, the lower).
    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
    }

    /// The lowest value.
    pub(crate) fn lowest(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    /// The highest value.
    pub(crate) fn highest(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// The value that this share of all is not above.
    pub(crate) fn at_share(&self, share: f64) -> f64 {
        let place = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// `median (lowest)`, or the only value.
    pub(crate) fn cost(&self, show: impl Fn(f64) -> String) -> String {
        self.shown(self.lowest(), show)
    }

    /// `median (highest)`, or the only value.
    pub(crate) fn speed(&self, show: impl Fn(f64) -> String) -> String {
        self.shown(self.highest(), show)
    }

    /// All values together.
    pub(crate) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// All of it.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "median": self.median(), "lowest": self.lowest(), "highest": self.highest() })
    }

    fn shown(&self, best: f64, show: impl Fn(f64) -> String) -> String {
        if self.0.len() < 2 {
            show(self.median())
        } else {
            format!("{} ({})", show(self.median()), show(best))
        }
    }
}

/// Two decimals.
pub(crate) fn two_decimals(value: f64) -> String {
    format!("{value:.2}")
}

/// Whole, with the thousands apart.
pub(crate) fn whole(value: f64) -> String {
    crate::table::grouped(value.round() as u64)
}

/// Megabytes (10⁶ bytes).
pub(crate) fn megabytes(bytes: f64) -> String {
    format!("{:.0}", bytes / 1e6)
}

/// A share, as a percentage.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// What a million records cost, of what `records` did.
pub(crate) fn per_million(cpu: Duration, records: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / records.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_shows_its_median_and_its_best() {
        let figure = Figure::of(&[3.0, 1.0, 2.0], |value| *value);
        assert_eq!(figure.cost(two_decimals), "2.00 (1.00)");
        assert_eq!(figure.speed(whole), "2 (3)");
        assert_eq!(Figure::of(&[5.0], |value| *value).cost(two_decimals), "5.00");
        assert_eq!(Figure::of(&[4.0, 8.0], |value| *value).median(), 4.0);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(Figure::of(&hundred, |value| *value).at_share(0.99), 99.0);
        assert_eq!(Figure::of(&hundred[..20], |value| *value).at_share(0.99), 20.0);
    }

    #[test]
    fn costs_are_scaled_to_a_million_records() {
        assert_eq!(per_million(Duration::from_millis(250), 100_000), 2.5);
    }
}
