//! Query strings in the form of HTML forms, decoded as storage decodes them.

use percent_encoding::percent_decode_str;

/// The names and values of a query, in order.
pub fn parse(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let pairs = parse("a=1%2B&&b=x+y&c&d=%C3%A9=%ff%zz");
        let expected = [("a", "1+"), ("b", "x y"), ("c", ""), ("d", "é=\u{fffd}%zz")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(parse("").is_empty());
    }
}
