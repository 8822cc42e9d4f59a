//! The arena of level-0 links against a map. Random operations from a fixed seed; runs on the test
//! runner's threads.

mod common;

use common::{Random, measure};
use llmcache_core::vector::links::LinkArena;
use std::collections::HashMap;

#[test]
fn links_agree_with_a_map() {
    let mut arena = LinkArena::new(6);
    let ((), _, _, kept) = measure(|| run(&mut arena));
    assert!(kept.unsigned_abs() <= arena.bytes(), "{kept} bytes are held by nobody");
}

fn run(arena: &mut LinkArena) {
    let mut random = Random(12);
    let mut model: HashMap<u32, (Vec<u32>, Option<u32>)> = HashMap::new();
    for step in 0..60_000 {
        let row = random.below(1_500) as u32;
        let other = random.below(9) as u32;
        match (model.get_mut(&row), random.below(6)) {
            (None, 0..=2) => {
                arena.occupy(row);
                model.insert(row, (Vec::new(), None));
            }
            (Some((links, _)), 0..=1) if links.len() < arena.capacity() => {
                arena.push(row, other);
                links.push(other);
            }
            (Some((links, _)), 2) => {
                let place = links.iter().position(|&link| link == other);
                assert_eq!(arena.take(row, other), place.is_some());
                place.map(|place| links.swap_remove(place));
            }
            (Some((_, upper)), 3) => {
                *upper = (random.below(2) == 0).then_some(step);
                arena.set_upper(row, *upper);
            }
            (Some(_), 4) => {
                arena.set_upper(row, None);
                arena.vacate(row);
                model.remove(&row);
            }
            _ => assert!(model.contains_key(&row) || !arena.take(row, other)),
        }
        let known = model.get(&row);
        assert_eq!(arena.is_linked(row), known.is_some());
        let links: Vec<u32> = arena.links(row).iter().collect();
        assert_eq!(links, known.map_or(&[][..], |(links, _)| links));
        assert_eq!(arena.upper(row), known.and_then(|(_, upper)| *upper));
        if step % 1_000 == 0 {
            arena.check_invariants();
        }
    }
    let mut rows: Vec<u32> = model.into_keys().collect();
    rows.sort_unstable();
    for row in rows {
        assert_eq!(arena.next_linked(0), Some(row));
        arena.set_upper(row, None);
        arena.vacate(row);
    }
    arena.check_invariants();
    assert_eq!(arena.next_linked(0), None);
}
