//! What has to hold beside the answers: what is passed over, where an answer ends, and what damage does.

use super::*;

fn one_segment() -> LogOptions {
    LogOptions { segment_age_max: Duration::MAX, compress_age: None, ..LogOptions::default() }
}

/// A node of 40 batches of 10 records each, alternating between two partitions, all indexed.
fn indexed_node() -> Node {
    let mut node = Node::new(2, one_segment());
    for batch in 0..40_u64 {
        let lines: Vec<String> = (0..10)
            .map(|place| {
                let number = batch * 10 + place;
                let level = if number.is_multiple_of(7) { "ERROR" } else { "INFO" };
                let service = if batch % 2 == 0 { "even" } else { "odd" };
                line(
                    1000 + number,
                    service,
                    Some(level),
                    &format!("request_id={:016x} done", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                    &[],
                )
            })
            .collect();
        node.append((batch % 2) as usize, &lines);
    }
    node.indexer.catch_up();
    node
}

#[test]
fn blocks_that_cannot_have_a_word_are_not_read() {
    let node = indexed_node();
    let id = format!("{:016x}", 123_u64.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    for (name, value) in [
        ("contains", &id[..]),
        ("word", &id),
        ("icontains", &id.to_uppercase()),
        ("contains", &id[3..13]),
        ("regex", &format!("_id={}[0-9a-f]+ d", &id[..9])),
    ] {
        let found = node.search(&query(&[(name, value)]));
        assert_eq!(found.records.len(), 1, "{name}={value}");
        assert_eq!(found.records[0].0.rank, 1123);
        let Stats { blocks, blocks_skipped, scanned_bytes, skipped_bytes, .. } = found.stats;
        assert!(blocks > 20 && blocks_skipped >= blocks - 3, "{name}={value}: {:?}", found.stats);
        assert!(scanned_bytes * 10 < skipped_bytes, "{name}={value}: {:?}", found.stats);
    }
}

#[test]
fn the_newest_of_a_service_take_one_block_and_its_counts_none() {
    let node = indexed_node();
    let found = node.search(&query(&[("service", "odd"), ("limit", "3")]));
    let times: Vec<u64> = found.records.iter().map(|(key, _)| key.rank).collect();
    assert_eq!(times, [1399, 1398, 1397]);
    assert!(found.stats.blocks_skipped >= found.stats.blocks - 2, "{:?}", found.stats);
    let (services, _, stats) = services::services(&node.snapshot(), &Filter::default(), &no_hurry());
    assert_eq!(services.iter().map(|service| service.records).collect::<Vec<_>>(), [200, 200]);
    assert_eq!(stats.scanned_bytes, 0);
    let buckets = Buckets::new(1003, 1398, Cut::Buckets(9)).unwrap();
    let (histogram, _, stats) =
        histogram::histogram(&node.snapshot(), &Filter::default(), buckets, &no_hurry());
    assert_eq!((histogram.total, stats.scanned_bytes), (395, 0));
}

#[test]
fn a_segment_of_another_time_is_not_opened() {
    let node = indexed_node();
    let found = node.search(&query(&[("to", "1000")]));
    assert_eq!((found.records.len(), found.stats.segments, found.stats.segments_skipped), (0, 2, 2));
}

#[test]
fn pages_stay_the_same_while_records_are_appended() {
    let mut node = indexed_node();
    let expected = node.expected(Direction::Backward, |_| true);
    let mut pages = Vec::new();
    let mut asked = query(&[("limit", "37")]);
    loop {
        let found = node.search(&asked);
        pages.extend(found_lines(&found));
        asked.cursor = found.next;
        if asked.cursor.is_none() {
            break;
        }
        // Newer ones come before all pages.
        node.append(0, &[line(9000, "even", None, "later", &[])]);
        node.indexer.step();
    }
    assert_eq!(pages, lines_of(&expected));
}

#[test]
fn records_of_the_same_time_are_each_found_once() {
    let mut node = Node::new(2, one_segment());
    for batch in 0..30 {
        let lines: Vec<String> =
            (0..10).map(|place| line(5, "s", None, &format!("{batch}/{place}"), &[])).collect();
        node.append(batch % 2, &lines);
        if batch == 17 {
            node.indexer.catch_up();
        }
    }
    for direction in [Direction::Backward, Direction::Forward] {
        let mut asked = Query { direction, ..query(&[("limit", "7")]) };
        let mut pages = Vec::new();
        loop {
            let found = node.search(&asked);
            pages.extend(found_lines(&found));
            asked.cursor = found.next;
            if asked.cursor.is_none() {
                break;
            }
        }
        assert_eq!(pages, lines_of(&node.expected(direction, |_| true)));
    }
}

#[test]
fn the_order_of_arrival_is_that_of_the_partition() {
    let mut node = Node::new(2, one_segment());
    for batch in 0..30_u64 {
        let lines: Vec<String> =
            (0..10).map(|place| line((batch * 7919 + place * 31) % 500, "s", None, "m", &[])).collect();
        node.append((batch % 2) as usize, &lines);
    }
    for catch_up in [false, true] {
        if catch_up {
            node.indexer.catch_up();
        }
        let mut asked = query(&[("partition", "1"), ("order", "arrival"), ("limit", "40")]);
        let mut offsets = Vec::new();
        loop {
            let found = node.search(&asked);
            offsets.extend(found.records.iter().map(|(key, _)| key.offset.get()));
            asked.cursor = found.next;
            if asked.cursor.is_none() {
                break;
            }
        }
        assert_eq!(offsets, (0..150).rev().collect::<Vec<u64>>());
        let forward =
            query(&[("partition", "1"), ("order", "arrival"), ("direction", "forward"), ("limit", "3")]);
        let found = node.search(&forward);
        let rest = node.search(&Query { cursor: found.next, ..forward });
        let offsets: Vec<u64> =
            found.records.iter().chain(&rest.records).map(|(key, _)| key.offset.get()).collect();
        assert_eq!(offsets, [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn an_answer_that_would_be_too_large_ends_earlier_and_can_be_gone_on_with() {
    let node = indexed_node();
    let mut asked = query(&[("limit", "200")]);
    let mut pages = Vec::new();
    loop {
        let found = search::search(&node.snapshot(), &asked, 5000, &no_hurry());
        let bytes: usize = found.records.iter().map(|(_, line)| line.len() + 64).sum();
        assert!(bytes <= 5000 && !found.records.is_empty());
        assert_eq!(found.lacks, if found.next.is_some() { vec![Lack::Bytes] } else { vec![] });
        pages.extend(found_lines(&found));
        asked.cursor = found.next;
        if asked.cursor.is_none() {
            break;
        }
    }
    assert_eq!(pages, lines_of(&node.expected(Direction::Backward, |_| true)));
}

#[test]
fn a_search_that_is_broken_off_says_so_and_where_to_go_on() {
    let node = indexed_node();
    let over = Watch::until(Instant::now()).0;
    for direction in [Direction::Backward, Direction::Forward] {
        let asked = Query { direction, ..query(&[]) };
        let found = search::search(&node.snapshot(), &asked, usize::MAX, &over);
        assert_eq!((found.records.len(), found.lacks), (0, vec![Lack::Time]));
        let rest = node.search(&Query { cursor: found.next, limit: 1000, ..asked });
        assert_eq!(found_lines(&rest), lines_of(&node.expected(direction, |_| true)));
    }
    let (watch, abandon) = Watch::until(Instant::now() + Duration::from_secs(3600));
    drop(abandon);
    let (_, lacks, _) = labels::labels(&node.snapshot(), &Filter::default(), None, &watch);
    assert_eq!(lacks, [Lack::Time]);
}

#[test]
fn damage_is_named_and_what_surrounds_it_is_found() {
    let mut node = indexed_node();
    let path = log::partition_dir(node.dir.path(), Partition::new(1)).join(format!("{:020}.jsonl", 0));
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for restart in [false, true] {
        if restart {
            node.restart();
            node.indexer.catch_up();
        }
        // A block holds a batch or more: all of the damaged batch is lost, and nothing else.
        let found = node.search(&query(&[("limit", "1000"), ("contains", "done")]));
        assert_eq!(found.lacks, [Lack::Damage(Partition::new(1))], "restart: {restart}");
        assert_eq!(found.records.len(), 390);
        let found = node.search(&query(&[("partition", "0"), ("contains", "done")]));
        assert_eq!(found.lacks, []);
    }
}

#[test]
fn more_services_than_a_block_lists_are_found_all_the_same() {
    let mut node = Node::new(1, one_segment());
    let mut indexer = Indexer::with_blocks(node.partitions.iter().cloned(), usize::MAX, 1 << 20);
    for batch in 0..4 {
        let lines: Vec<String> =
            (0..300).map(|n| line(n, &format!("service-{n}"), Some("A"), &format!("{batch}"), &[])).collect();
        node.append(0, &lines);
    }
    indexer.catch_up();
    for service in ["service-3", "service-299"] {
        let found = node.search(&query(&[("service", service)]));
        assert_eq!(found.records.len(), 4, "{service}");
        let found = node.search(&query(&[("service", service), ("contains", "2")]));
        assert_eq!(found.records.len(), 1, "{service}");
    }
    let (services, lacks, _) = services::services(&node.snapshot(), &Filter::default(), &no_hurry());
    assert_eq!((services.len(), lacks), (300, vec![]));
    assert!(services.iter().all(|service| service.records == 4));
    let found = node.search(&query(&[("service", "nobody")]));
    assert_eq!(found.stats.scanned_bytes, 0, "the filter knows all services");
}

#[test]
fn the_context_of_a_record_are_its_neighbours() {
    let mut node = Node::new(2, one_segment());
    for batch in 0..10_u64 {
        let lines: Vec<String> = (0..5)
            .map(|n| line(n, if n % 2 == 0 { "a" } else { "b" }, None, &format!("{batch}/{n}"), &[]))
            .collect();
        node.append(1, &lines);
    }
    let context = |parameters: &[(&str, &str)]| {
        let query =
            ContextQuery::parse([("partition", "1")].into_iter().chain(parameters.iter().copied())).unwrap();
        let found = context::context(node.partitions[1].reader(), &query, usize::MAX, &no_hurry())?;
        assert_eq!(found.lacks, []);
        Some(found.records.iter().map(|(key, _)| key.offset.get()).collect::<Vec<_>>())
    };
    assert_eq!(context(&[("offset", "7"), ("before", "3"), ("after", "4")]), Some((4..=11).collect()));
    assert_eq!(context(&[("offset", "1"), ("before", "3"), ("after", "0")]), Some(vec![0, 1]));
    assert_eq!(context(&[("offset", "49")]), Some((39..=49).collect()));
    assert_eq!(
        context(&[("offset", "7"), ("before", "2"), ("after", "3"), ("service", "same")]),
        Some(vec![4, 5, 7, 9, 10, 12])
    );
    assert_eq!(context(&[("offset", "50")]), None);
}
