//! The names of services and levels in one segment, each stored once.
//!
//! Invariant: an id names the same text for as long as the segment exists. Beyond the bound no more names are listed,
//! and records that have such are looked at one by one.

use std::collections::HashMap;

use super::varint;

/// Names of services that one segment lists. 65,536 of 30 bytes are 2 MB.
const SERVICES_MAX: usize = 1 << 16;

/// Names of levels that one segment lists. A client can write what it likes as a level; few do.
const LEVELS_MAX: usize = 1 << 10;

/// Bytes of all names of one kind.
const NAME_BYTES_MAX: usize = 4 << 20;

/// The names of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    services: NameList,
    levels: NameList,
}

/// The names of one kind; an id is a place in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameList {
    names: Vec<Box<str>>,
    ids: HashMap<Box<str>, u32>,
    bytes: usize,
}

impl Names {
    /// The services' names.
    pub(crate) fn services(&self) -> &NameList {
        &self.services
    }

    /// The levels' names as they were written; the empty name is that of records without a level.
    pub(crate) fn levels(&self) -> &NameList {
        &self.levels
    }

    /// The ids of a service and a level, listed if there is room.
    pub(super) fn list(&mut self, service: &str, level: &str) -> Option<(u32, u32)> {
        let service = self.services.list(service, SERVICES_MAX)?;
        Some((service, self.levels.list(level, LEVELS_MAX)?))
    }

    /// Whether both are listed.
    pub(super) fn has(&self, service: &str, level: &str) -> bool {
        self.services.id(service).is_some() && self.levels.id(level).is_some()
    }

    /// Bytes of memory that the names take.
    pub(super) fn memory_bytes(&self) -> usize {
        let list = |list: &NameList| 2 * list.bytes + 64 * list.names.len();
        list(&self.services) + list(&self.levels)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for list in [&self.services, &self.levels] {
            varint::write(out, list.names.len() as u64);
            for name in &list.names {
                varint::write(out, name.len() as u64);
                out.extend_from_slice(name.as_bytes());
            }
        }
    }

    pub(super) fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            services: NameList::read(bytes, SERVICES_MAX)?,
            levels: NameList::read(bytes, LEVELS_MAX)?,
        })
    }
}

impl NameList {
    /// The name of this id.
    pub(crate) fn name(&self, id: u32) -> Option<&str> {
        self.names.get(id as usize).map(|name| &**name)
    }

    /// The id of this name.
    pub(crate) fn id(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// All names, in the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    fn list(&mut self, name: &str, names_max: usize) -> Option<u32> {
        if let Some(id) = self.id(name) {
            return Some(id);
        }
        if self.names.len() >= names_max || self.bytes + name.len() > NAME_BYTES_MAX {
            return None;
        }
        let id = self.names.len() as u32;
        self.names.push(name.into());
        self.ids.insert(name.into(), id);
        self.bytes += name.len();
        Some(id)
    }

    fn read(bytes: &mut &[u8], names_max: usize) -> Option<Self> {
        let count = varint::read(bytes)?;
        let mut list = Self::default();
        for id in 0..count {
            let length = usize::try_from(varint::read(bytes)?).ok()?;
            let (name, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            let listed = list.list(std::str::from_utf8(name).ok()?, names_max)?;
            // A name that is there twice would have two ids.
            if u64::from(listed) != id {
                return None;
            }
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_ids_through_a_file() {
        let mut names = Names::default();
        assert_eq!(names.list("a", "INFO"), Some((0, 0)));
        assert_eq!(names.list("b", ""), Some((1, 1)));
        assert_eq!(names.list("a", ""), Some((0, 1)));
        let mut bytes = Vec::new();
        names.write(&mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(Names::read(&mut rest), Some(names.clone()));
        assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            assert_eq!(Names::read(&mut &bytes[..cut]), None);
        }
        assert_eq!((names.services().name(1), names.levels().id("INFO")), (Some("b"), Some(0)));
    }

    #[test]
    fn there_is_no_room_for_more_names_than_the_bound() {
        let mut names = Names::default();
        for number in 0..LEVELS_MAX {
            assert!(names.list("a", &number.to_string()).is_some());
        }
        assert_eq!(names.list("a", "one more"), None);
        assert!(names.list("a", "0").is_some());
    }
}
