//! Bodies for a storage node: the load generator's records as the ingest would forward them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::load;

/// What the ingest adds to each record; as long as its own.
const ENRICHMENT: &[u8] =
    b",\"received_at\":1700000000000,\"ingested_node_id\":\"ingest-1\",\"client_ip\":\"127.0.0.1\"}\n";

/// `count` bodies of `records` records each, as NDJSON.
///
/// # Errors
/// loadgen failed.
pub(crate) fn make(loadgen: &Path, dir: &Path, records: u64, count: u64) -> anyhow::Result<Vec<Vec<u8>>> {
    let corpus = dir.join("corpus.jsonl");
    load::write_corpus(loadgen, records * count, &corpus)?;
    let file =
        std::fs::File::open(&corpus).with_context(|| format!("could not read {}", corpus.display()))?;
    let mut lines = BufReader::new(file).split(b'\n');
    let mut bodies = Vec::new();
    for _ in 0..count {
        let mut body = Vec::new();
        for _ in 0..records {
            let line = lines.next().context("the corpus is too short")??;
            enrich(&line, &mut body)?;
        }
        bodies.push(body);
    }
    std::fs::remove_file(&corpus)?;
    Ok(bodies)
}

/// Appends a record's line with the ingest's fields.
fn enrich(line: &[u8], body: &mut Vec<u8>) -> anyhow::Result<()> {
    let open = line.strip_suffix(b"}");
    ensure!(open.is_some(), "a line of the corpus is no object: {}", String::from_utf8_lossy(line));
    body.extend_from_slice(open.unwrap_or_default());
    body.extend_from_slice(ENRICHMENT);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gets_the_fields_that_storage_asks_for() {
        let mut body = Vec::new();
        enrich(br#"{"timestamp":1,"service":"s","message":"m"}"#, &mut body).unwrap();
        let line = body.strip_suffix(b"\n").unwrap();
        model::EnrichedLine::parse(line).unwrap();
        assert!(enrich(b"[]", &mut body).is_err());
    }
}
