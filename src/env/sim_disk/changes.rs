//! The changes of files and directories that no sync has reached, and what a loss of power leaves of them.

use super::super::rng::Rng;
use std::collections::BTreeMap;

/// Bytes that reach the disk together.
const PAGE: usize = 4096;

#[derive(Debug, Clone)]
pub(super) enum FileChange {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl FileChange {
    pub(super) fn apply(&self, data: &mut Vec<u8>) {
        match self {
            FileChange::Write { at, bytes } => {
                data.resize(data.len().max(at + bytes.len()), 0);
                data[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            FileChange::SetLen(len) => data.resize(*len, 0),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum DirChange {
    Put(String, usize),
    Remove(String),
    Rename(String, String),
}

impl DirChange {
    pub(super) fn apply(&self, entries: &mut BTreeMap<String, usize>) {
        match self {
            DirChange::Put(name, node) => {
                entries.insert(name.clone(), *node);
            }
            DirChange::Remove(name) => {
                entries.remove(name);
            }
            DirChange::Rename(from, to) => {
                if let Some(node) = entries.remove(from) {
                    entries.insert(to.clone(), node);
                }
            }
        }
    }
}

/// What a loss of power leaves of a file: as it was after some change, or page by page after different ones.
pub(super) fn left_of_file(rng: &mut Rng, durable: &[u8], changes: &[FileChange]) -> Vec<u8> {
    if changes.is_empty() {
        return durable.to_vec();
    }
    let mut versions = vec![durable.to_vec()];
    for change in changes {
        let mut next = versions[versions.len() - 1].clone();
        change.apply(&mut next);
        versions.push(next);
    }
    let kept = rng.below(versions.len());
    if rng.one_in(3) {
        return versions.swap_remove(kept);
    }
    let mut len = versions[kept].len();
    if len > durable.len() && rng.one_in(3) {
        len = durable.len() + rng.below(len - durable.len());
    }
    // Small pages as well: what is torn at any sector must be found as what is torn at any page.
    let page = if rng.one_in(2) { PAGE } else { PAGE / 8 };
    let mut left = vec![0; len];
    for start in (0..len).step_by(page) {
        let version = &versions[rng.below(versions.len())];
        let end = len.min(start + page).min(version.len());
        if start < end {
            left[start..end].copy_from_slice(&version[start..end]);
        }
    }
    left
}
