//! Nodes by path, and the file that keeps them:
//!
//! ```json
//! {"version": 1, "nodes": {"/brokers/ids": null, "/cluster/id": "{\"version\":\"1\",\"id\":\"...\"}"}}
//! ```
//!
//! A node's data is the text that ZooKeeper has, `null` where it has none; nodes that Kafka does not keep for long
//! (`/config/changes` and other notices) are left out.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The version of the file.
const VERSION: i64 = 1;

/// Nodes of ZooKeeper: path to data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, Option<String>>,
}

impl Tree {
    /// Adds a node, or replaces it.
    pub fn insert(&mut self, path: impl Into<String>, data: Option<String>) {
        self.nodes.insert(path.into(), data);
    }

    /// Takes a node and everything below it out.
    pub fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.nodes.retain(|node, _| node != path && !node.starts_with(&below));
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node's data; `None` where the node is not there or has none.
    pub fn data(&self, path: &str) -> Option<&str> {
        self.nodes.get(path)?.as_deref().filter(|data| !data.is_empty())
    }

    /// Every node below `path`, with its path from there, in the order of the paths.
    pub fn below<'a>(
        &'a self,
        path: &'a str,
    ) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + 'a {
        let rest = move |node: &'a str| node.strip_prefix(path)?.strip_prefix('/');
        let mut all = self.nodes.range(format!("{path}/")..);
        std::iter::from_fn(move || {
            let (node, data) = all.next()?;
            Some((rest(node)?, data.as_deref().filter(|data| !data.is_empty())))
        })
    }

    /// The names of a node's children.
    pub fn children<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.below(path).map(|(rest, _)| rest).filter(|rest| !rest.contains('/'))
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let data = |data: &Option<String>| data.clone().map_or(Value::Null, Value::String);
        let nodes: Map<String, Value> =
            self.nodes.iter().map(|(path, it)| (path.clone(), data(it))).collect();
        let file = serde_json::json!({"version": VERSION, "nodes": nodes});
        // A pretty text cannot fail: it has no keys but strings.
        serde_json::to_string_pretty(&file).unwrap_or_default()
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(bytes: &[u8]) -> Result<Tree, String> {
        let file: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let version = file.get("version").and_then(Value::as_i64);
        if version != Some(VERSION) {
            return Err("it has no version that is known: see `ottla export-zookeeper`".to_owned());
        }
        let nodes = file.get("nodes").and_then(Value::as_object).ok_or("it has no nodes")?;
        let mut tree = Tree::default();
        for (path, data) in nodes {
            let data = match data {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                _ => return Err(format!("the data of {path} is neither text nor null")),
            };
            if !path.starts_with('/') {
                return Err(format!("{path:?} is no path of a node"));
            }
            tree.insert(path.clone(), data);
        }
        Ok(tree)
    }
}
