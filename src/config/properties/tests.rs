use super::*;
use proptest::prelude::*;

fn check(text: &str, expected: &[(&str, &str)]) {
    let found = parse(text.as_bytes()).expect("well formed");
    let found: Vec<(&str, &str)> =
        found.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    assert_eq!(found, expected, "{text:?}");
}

#[test]
fn separators_comments_and_blanks_are_javas() {
    check("a=b", &[("a", "b")]);
    check("a:b\na b\n a\t=  b \n", &[("a", "b"), ("a", "b"), ("a", "b ")]);
    check("# c\n  ! d\n\n\r\na==b\r\nx", &[("a", "=b"), ("x", "")]);
    check("a = = b", &[("a", "= b")]);
    check("=b", &[("", "b")]);
    check("a\rb\r\nc", &[("a", ""), ("b", ""), ("c", "")]);
}

#[test]
fn escapes_and_continuations_are_javas() {
    check("a\\=b=c", &[("a=b", "c")]);
    check("a=b\\\n   c", &[("a", "bc")]);
    check("a=b\\\\\nc", &[("a", "b\\"), ("c", "")]);
    check("a=\\u00e9\\t\\q", &[("a", "\u{e9}\tq")]);
    check("a=\\ud83d\\ude00", &[("a", "\u{1f600}")]);
    check("a=b\\\n# not a comment", &[("a", "b# not a comment")]);
    check("a=b\\", &[("a", "b")]);
    assert!(parse(b"a=\\u00g0").is_err());
    assert!(parse(b"a=\\u12").is_err());
}

#[test]
fn bytes_that_are_not_utf8_are_latin1() {
    assert_eq!(parse(b"a=\xe9").expect("read")[0].value, "\u{e9}");
    assert_eq!(parse("a=\u{e9}".as_bytes()).expect("read")[0].value, "\u{e9}");
}

#[test]
fn lines_are_counted_from_where_a_property_begins() {
    let found = parse(b"\n# x\na=\\\n 1\nb=2").expect("read");
    assert_eq!(found.iter().map(|entry| entry.line).collect::<Vec<_>>(), [3, 5]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_text_of_the_syntax_is_read_without_panic(text in "[a\\\\u0=: \t\r\n#!é]{0,200}") {
        let _ = parse(text.as_bytes());
    }
}
