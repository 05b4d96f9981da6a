//! The door alone: what clients of ZooKeeper may rely on.

use super::*;
use EventKind::{ChildrenChanged, Created, DataChanged, Deleted};

const ONE: SessionId = SessionId(1);
const TWO: SessionId = SessionId(2);

fn at(uptime_ms: i64) -> Now {
    Now { wall_ms: 1_000_000 + uptime_ms, uptime_ms }
}

fn door() -> Door {
    let mut door = Door::new(at(0));
    for id in [ONE, TWO] {
        door.open_session(id, [id.0 as u8; 16], Some(6000), at(0)).unwrap();
    }
    door
}

fn create(path: &str, mode: CreateMode) -> Request {
    let data = Bytes::copy_from_slice(path.as_bytes());
    Request::Create { path: path.to_owned(), data, mode, wants_stat: false }
}

fn make(door: &mut Door, id: SessionId, path: &str, mode: CreateMode) -> Result<String, ErrorCode> {
    match door.handle(id, create(path, mode), at(1))? {
        Response::Created(path, None) => Ok(path),
        other => panic!("{other:?}"),
    }
}

fn children(door: &mut Door, path: &str, watch: Watch) -> Result<Vec<String>, ErrorCode> {
    let request = Request::GetChildren { path: path.to_owned(), watch, wants_stat: false };
    match door.handle(ONE, request, at(1))? {
        Response::Children(names, None) => Ok(names),
        other => panic!("{other:?}"),
    }
}

fn exists(door: &mut Door, path: &str, watch: Watch) -> Result<Stat, ErrorCode> {
    match door.handle(ONE, Request::Exists { path: path.to_owned(), watch }, at(1))? {
        Response::Stat(stat) => Ok(stat),
        other => panic!("{other:?}"),
    }
}

fn delete(door: &mut Door, path: &str, version: i32) -> Result<Response, ErrorCode> {
    door.handle(TWO, Request::Delete { path: path.to_owned(), version }, at(1))
}

fn set(door: &mut Door, path: &str, version: i32) -> Result<Response, ErrorCode> {
    let data = Bytes::from_static(b"new");
    door.handle(TWO, Request::SetData { path: path.to_owned(), data, version }, at(2))
}

fn events(door: &mut Door) -> Vec<(EventKind, String)> {
    door.take_events(ONE).into_iter().map(|event| (event.kind, event.path)).collect()
}

#[test]
fn nodes_are_a_tree() {
    use CreateMode::{Ephemeral, Persistent};
    let mut door = door();
    assert_eq!(make(&mut door, ONE, "/a/b", Persistent), Err(ErrorCode::NoNode));
    make(&mut door, ONE, "/a", Persistent).unwrap();
    assert_eq!(make(&mut door, TWO, "/a", Persistent), Err(ErrorCode::NodeExists));
    make(&mut door, ONE, "/a/b", Persistent).unwrap();
    make(&mut door, ONE, "/a/c", Ephemeral).unwrap();
    assert_eq!(make(&mut door, ONE, "/a/c/d", Persistent), Err(ErrorCode::NoChildrenForEphemerals));
    assert_eq!(children(&mut door, "/", Watch::None).unwrap(), ["a"]);
    assert_eq!(children(&mut door, "/a", Watch::None).unwrap(), ["b", "c"]);
    let stat = exists(&mut door, "/a", Watch::None).unwrap();
    assert_eq!((stat.children, stat.cversion, stat.data_length, stat.version), (2, 2, 2, 0));
    assert_eq!(delete(&mut door, "/a", -1), Err(ErrorCode::NotEmpty));
    assert_eq!(set(&mut door, "/a/b", 1), Err(ErrorCode::BadVersion));
    set(&mut door, "/a/b", 0).unwrap();
    assert_eq!(delete(&mut door, "/a/b", 0), Err(ErrorCode::BadVersion));
    delete(&mut door, "/a/b", 1).unwrap();
    assert_eq!(exists(&mut door, "/a/b", Watch::None), Err(ErrorCode::NoNode));
    delete(&mut door, "/a/c", -1).unwrap();
    delete(&mut door, "/a", -1).unwrap();
    assert_eq!((door.node_count(), door.bytes), (1, 0));
    assert_eq!(delete(&mut door, "/", -1), Err(ErrorCode::BadArguments));
}

#[test]
fn paths_that_are_none_are_refused() {
    let mut door = door();
    for path in
        ["", "a", "/a/", "//a", "/a//b", "/.", "/a/..", "/a\0", &format!("/{}", "x".repeat(5000))]
    {
        let made = make(&mut door, ONE, path, CreateMode::Persistent);
        assert_eq!(made, Err(ErrorCode::BadArguments), "{path}");
    }
}

#[test]
fn sequential_names_never_come_twice() {
    use CreateMode::{EphemeralSequential, Persistent, PersistentSequential};
    let mut door = door();
    make(&mut door, ONE, "/q", Persistent).unwrap();
    assert_eq!(make(&mut door, ONE, "/q/", PersistentSequential).unwrap(), "/q/0000000000");
    assert_eq!(make(&mut door, ONE, "/q/x", EphemeralSequential).unwrap(), "/q/x0000000001");
    delete(&mut door, "/q/x0000000001", -1).unwrap();
    assert_eq!(make(&mut door, ONE, "/q/x", EphemeralSequential).unwrap(), "/q/x0000000002");
}

#[test]
fn a_watch_fires_once_and_says_what_happened() {
    use CreateMode::Persistent;
    let mut door = door();
    assert_eq!(exists(&mut door, "/a", Watch::Leave), Err(ErrorCode::NoNode));
    make(&mut door, TWO, "/a", Persistent).unwrap();
    assert_eq!(door.take_woken(), BTreeSet::from([ONE]));
    assert_eq!(events(&mut door), [(Created, "/a".to_owned())]);
    set(&mut door, "/a", -1).unwrap();
    assert_eq!(events(&mut door), []);
    exists(&mut door, "/a", Watch::Leave).unwrap();
    set(&mut door, "/a", -1).unwrap();
    set(&mut door, "/a", -1).unwrap();
    assert_eq!(events(&mut door), [(DataChanged, "/a".to_owned())]);
    // Data and children are watched apart; that the node goes is told once.
    exists(&mut door, "/a", Watch::Leave).unwrap();
    children(&mut door, "/a", Watch::Leave).unwrap();
    children(&mut door, "/", Watch::Leave).unwrap();
    delete(&mut door, "/a", -1).unwrap();
    let expected = [(Deleted, "/a".to_owned()), (ChildrenChanged, "/".to_owned())];
    assert_eq!(events(&mut door), expected);
    // A node that is not there leaves no watch of its content.
    let get = Request::GetData { path: "/a".to_owned(), watch: Watch::Leave };
    assert_eq!(door.handle(ONE, get, at(1)), Err(ErrorCode::NoNode));
    make(&mut door, TWO, "/a", Persistent).unwrap();
    assert_eq!(events(&mut door), []);
    assert!(door.data_watchers.is_empty() && door.child_watchers.is_empty());
}

#[test]
fn a_session_that_ends_takes_its_nodes_and_watches_along() {
    let mut door = door();
    make(&mut door, TWO, "/mine", CreateMode::Ephemeral).unwrap();
    make(&mut door, ONE, "/other", CreateMode::Ephemeral).unwrap();
    children(&mut door, "/", Watch::Leave).unwrap();
    let watch = Request::Exists { path: "/other".to_owned(), watch: Watch::Leave };
    door.handle(TWO, watch, at(1)).unwrap();
    door.handle(TWO, Request::CloseSession, at(2)).unwrap();
    assert_eq!(events(&mut door), [(ChildrenChanged, "/".to_owned())]);
    assert_eq!(children(&mut door, "/", Watch::None).unwrap(), ["other"]);
    assert!(door.data_watchers.is_empty());
    let late = door.handle(TWO, Request::Ping, at(2));
    assert_eq!(late, Err(ErrorCode::SessionExpired));
}

#[test]
fn a_silent_session_ends_when_its_time_is_over_and_not_before() {
    let mut door = door();
    make(&mut door, TWO, "/mine", CreateMode::Ephemeral).unwrap();
    door.handle(ONE, Request::Ping, at(5000)).unwrap();
    assert_eq!(door.next_expiry_ms(), Some(6001));
    assert_eq!(door.expire(at(6000)), []);
    assert_eq!(door.expire(at(6001)), [TWO]);
    assert_eq!(door.next_expiry_ms(), Some(11_000));
    assert_eq!(exists(&mut door, "/mine", Watch::None), Err(ErrorCode::NoNode));
    door.excuse_silence(at(60_000));
    assert_eq!(door.expire(at(60_001)), []);
    // The session of the process itself needs no word.
    door.open_session(SessionId(3), [3; 16], None, at(0)).unwrap();
    assert_eq!(door.expire(at(1 << 40)), [ONE]);
    assert!(door.has_session(SessionId(3)));
}

#[test]
fn a_session_goes_on_with_its_password_and_sets_its_watches_again() {
    use CreateMode::{Ephemeral, Persistent};
    let mut door = door();
    make(&mut door, ONE, "/mine", Ephemeral).unwrap();
    for path in ["/same", "/changed", "/gone"] {
        make(&mut door, TWO, path, Persistent).unwrap();
        exists(&mut door, path, Watch::Leave).unwrap();
    }
    let seen = door.zxid();
    assert_eq!(door.resume_session(ONE, &[9; 16], at(3)), None);
    assert_eq!(door.resume_session(SessionId(9), &[1; 16], at(3)), None);
    assert_eq!(door.resume_session(ONE, &[1; 16], at(3)), Some(6000));
    exists(&mut door, "/mine", Watch::None).unwrap();
    set(&mut door, "/changed", -1).unwrap();
    delete(&mut door, "/gone", -1).unwrap();
    make(&mut door, TWO, "/new", Persistent).unwrap();
    assert_eq!(events(&mut door), []);
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    let watches = Watches {
        zxid: seen,
        data: paths(&["/same", "/changed", "/gone"]),
        exist: paths(&["/new", "/never"]),
        child: paths(&["/", "/same", "/gone"]),
    };
    door.handle(ONE, Request::SetWatches(watches), at(4)).unwrap();
    let told: Vec<_> = [(DataChanged, "/changed"), (Deleted, "/gone"), (Created, "/new")]
        .into_iter()
        .chain([(ChildrenChanged, "/"), (Deleted, "/gone")])
        .map(|(kind, path)| (kind, path.to_owned()))
        .collect();
    assert_eq!(events(&mut door), told);
    set(&mut door, "/same", -1).unwrap();
    make(&mut door, TWO, "/never", Persistent).unwrap();
    assert_eq!(events(&mut door), [(DataChanged, "/same".into()), (Created, "/never".into())]);
}

#[test]
fn watches_can_be_taken_back() {
    let mut door = door();
    make(&mut door, TWO, "/a", CreateMode::Persistent).unwrap();
    for (kind, expected) in [(1, Some(DataChanged)), (2, None), (3, None)] {
        exists(&mut door, "/a", Watch::Leave).unwrap();
        children(&mut door, "/a", Watch::Leave).unwrap();
        let remove = Request::RemoveWatches { path: "/a".to_owned(), kind };
        door.handle(ONE, remove, at(1)).unwrap();
        set(&mut door, "/a", -1).unwrap();
        assert_eq!(events(&mut door).pop().map(|(kind, _)| kind), expected, "{kind}");
    }
}

#[test]
fn changes_are_numbered_on_from_an_earlier_door() {
    let mut earlier = door();
    make(&mut earlier, ONE, "/a", CreateMode::Persistent).unwrap();
    assert!(Door::new(at(1)).zxid() > earlier.zxid());
}
