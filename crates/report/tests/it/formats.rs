//! Every format, with the worst names that there are.

use portcullis_api::{Client, RefusedFor, Timestamp};
use portcullis_report::readiness::Readiness;
use portcullis_report::replay::Replay;
use portcullis_report::{Answer, Form, Names};

use crate::model::*;
use crate::replay::{PERMISSIVE, STRICT, replay, set};

const HOSTILE: &str = "<b>&\"'|`x`]]>\u{1b}[2J\r\n\u{202e}{0} @all [a](https://b) ";

fn hostile() -> Vec<Answer> {
    let refused = Connection { refused: Some("plaintext_in_strict"), ..plaintext("10.0.0.7", 60) };
    let mut observations = sidecar(ledger(&[plaintext("10.0.0.5", 60), refused, mtls("web", 60)]));
    for observation in &mut observations.observations {
        observation.peer = Client {
            name: Some(HOSTILE.to_owned()),
            server_name: Some(HOSTILE.to_owned()),
            ..observation.peer.clone()
        };
    }
    observations.observations[1].last_refusal =
        Some(RefusedFor { reason: HOSTILE.to_owned(), policy: HOSTILE.to_owned(), at: Timestamp::from_unix(NOW) });
    observations.proxy.labels.insert("app".to_owned(), HOSTILE.to_owned());
    for port in &mut observations.ports {
        port.decided_by.file = Some(HOSTILE.to_owned());
    }
    let failed = Answer { label: HOSTILE.to_owned(), observations: Err(HOSTILE.to_owned()) };
    vec![answer(observations), failed]
}

fn readiness() -> Readiness {
    Readiness::new(&hostile(), &Names::default(), &[], &options())
}

fn replayed() -> Replay {
    replay(&hostile(), Some(&set(&[PERMISSIVE])), &set(&[STRICT]))
}

fn all(form: Form) -> [String; 2] {
    [readiness().render(form).unwrap(), replayed().render(form).unwrap()]
}

#[test]
fn no_format_passes_on_what_a_terminal_or_a_browser_would_obey() {
    for form in Form::ALL {
        for text in all(form) {
            let hidden = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!text.contains(hidden), "{form:?}:\n{text:?}");
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{form:?}");
        }
    }
    for text in all(Form::Markdown) {
        let prose: String =
            text.lines().filter(|line| !line.starts_with("  ")).map(|line| format!("{line}\n")).collect();
        assert!(!prose.contains("<b>") && !prose.contains("@all") && !prose.contains("https://b"), "{prose}");
        let columns = |line: &str| line.matches('|').count();
        let mut rows = prose.lines().filter(|line| line.starts_with('|'));
        let header = columns(rows.next().unwrap());
        assert!(rows.all(|row| columns(row) == header), "{prose}");
    }
}

#[test]
fn json_and_yaml_say_the_same() {
    for (json, yaml) in all(Form::Json).into_iter().zip(all(Form::Yaml)) {
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let yaml: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(json, yaml);
        assert_eq!(json["apiVersion"], "portcullis/v1");
        assert!(json["items"].as_array().is_some_and(|items| !items.is_empty()));
        assert_eq!(json["status"], "NOT_READY");
    }
}

/// As far as XML is used here: every element closes, attributes are quoted, and no other character means something.
fn elements(xml: &str) -> Vec<(String, Vec<(String, String)>)> {
    let body = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap();
    let (mut found, mut open) = (Vec::new(), Vec::new());
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap();
        assert!(!text.contains('"') && !text.contains(']') || !text.contains("]]>"), "{text}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = Vec::new();
        while let Some((key, value)) = rest.split_once("=\"") {
            let (value, behind) = value.split_once('"').unwrap();
            attributes.push((key.trim().to_owned(), value.to_owned()));
            rest = behind;
        }
        assert_eq!(rest.trim(), "");
        if !is_empty {
            open.push(name.to_owned());
        }
        found.push((name.to_owned(), attributes));
    }
    assert!(open.is_empty(), "{open:?}");
    found
}

#[test]
fn junit_has_a_case_for_each_port_and_its_counts_are_right() {
    for (xml, least) in all(Form::Junit).into_iter().zip([3, 3]) {
        let elements = elements(&xml);
        let count = |name: &str| elements.iter().filter(|(element, _)| element == name).count();
        assert_eq!((count("testsuites"), count("testsuite")), (1, 1));
        assert_eq!(count("testcase"), least, "{xml}");
        let suite = &elements.iter().find(|(name, _)| name == "testsuite").unwrap().1;
        let number = |key: &str| suite.iter().find(|(name, _)| name == key).unwrap().1.parse::<usize>().unwrap();
        assert_eq!(number("tests"), count("testcase"));
        assert_eq!((number("failures"), number("errors")), (count("failure"), count("error")));
        assert_eq!(count("failure"), 1);
        // What the schema of Jenkins' plug-in knows.
        let known = [
            ("testsuites", &["name", "tests", "failures", "errors", "time"][..]),
            ("testsuite", &["name", "tests", "failures", "errors", "skipped", "time"]),
            ("testcase", &["name", "classname", "time"]),
            ("failure", &["type", "message"]),
            ("error", &["type", "message"]),
        ];
        for (name, attributes) in &elements {
            let (_, allowed) = known.iter().find(|(element, _)| element == name).unwrap();
            assert!(attributes.iter().all(|(key, _)| allowed.contains(&key.as_str())), "{name} {attributes:?}");
        }
    }
}

#[test]
fn sarif_points_at_the_policy_that_decides() {
    for text in all(Form::Sarif) {
        let log: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&log["version"], log["runs"].as_array().unwrap().len()), (&"2.1.0".into(), 1));
        let run = &log["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        let results = run["results"].as_array().unwrap();
        assert!(results.len() >= 2);
        for result in results {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            assert!(["error", "warning"].contains(&result["level"].as_str().unwrap()));
            assert!(
                !result["message"]["text"].as_str().unwrap().contains("{0}")
                    || result["message"]["text"].as_str().unwrap().contains("{{0}}")
            );
        }
        let place = &results[0]["locations"][0]["physicalLocation"];
        assert!(place["region"]["startLine"].as_u64().is_some_and(|line| line > 0), "{results:?}");
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(uri.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%:".contains(&byte)), "{uri}");
    }
}

#[test]
fn the_table_is_that_of_the_guide() {
    let cron = (0..20).map(|n| plaintext("10.0.0.9", 7200 + n * 120));
    let observations = sidecar(ledger(
        &cron.chain(often(&Connection { address: "10.0.0.8".parse().unwrap(), ..mtls("web", 60) })).collect::<Vec<_>>(),
    ));
    let names = Names::from_iter([("10.0.0.9".parse().unwrap(), "cron-report".to_owned())]);
    let report = Readiness::new(&[answer(observations)], &names, &[], &options());
    assert_eq!(
        report.render(Form::Table).unwrap(),
        "WORKLOAD  PORT  NOW         MTLS   PLAINTEXT CLIENTS       LAST SEEN  VERDICT\n\
         cart      8080  PERMISSIVE  90.1%  cron-report (10.0.0.9)  2h ago     NOT READY\n\
         cart      9090  PERMISSIVE  -      -                       -          NO DATA\n\
         0 of 2 ready. Not ready: cart:8080. No connection seen: cart:9090. Shortest observation 7d (window 7d, required 1d): confidence LOW\n\
         Confidence: only 0 connections in the window\n\
         \n\
         Clients that STRICT would refuse:\n  \
           cron-report (10.0.0.9) -> cart:8080: no sidecar; 20 connections, first 2h ago, last 2h ago, about every 2m\n    \
             Fix: cron-report is a service of the compose file without a sidecar: add one, in the folder of that file -> \
         `portcullis compose add cron-report -n shop --apply`\n"
    );
}
