//! docs/reliability.md rests on tests that there are.

use std::process::Command;

const TABLES: &str = include_str!("../../docs/reliability.md");

#[test]
fn the_tests_that_the_documentation_names_exist() {
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this).args(["--list", "--format", "terse"]).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let tests: Vec<_> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let named: Vec<_> = TABLES.split('`').filter(|word| word.contains("::")).collect();
    assert!(named.len() > 20, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !tests.contains(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    // A line without a test claims what nobody has seen.
    let rows = TABLES.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    for row in rows.filter(|row| !row.starts_with("| what |")) {
        let cell = row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1;
        assert!(cell.contains("::") || cell == "the three above", "{row}");
    }
}
