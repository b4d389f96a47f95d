use super::*;

#[test]
fn what_was_written_before_roots_were_noted_is_below_the_unknown_one() {
    let id = "spiffe://cluster.local/ns/shop/sa/cart";
    let image = format!(r#"{{"tokens":[],"keys":[],"identities":[["{id}",1800000000,null]]}}"#);
    let memory = Memory::from_image(serde_json::from_str(&image).unwrap()).unwrap();
    let id = SpiffeId::parse(id).unwrap();
    assert_eq!(memory.identities[&id].below, BTreeMap::from([(String::new(), 1_800_000_000)]));
    // Written again, it is the same.
    let again = serde_json::from_str(&serde_json::to_string(&memory.image()).unwrap()).unwrap();
    assert_eq!(Memory::from_image(again).unwrap().identities, memory.identities);
    let mut memory = Memory::default();
    let record = format!(
        r#"{{"Issued":{{"id":"{id}","key":"{}","serial":"40","not_after":1800000000,"token":null}}}}"#,
        "0a".repeat(32)
    );
    memory.replay(serde_json::from_str(&record).unwrap()).unwrap();
    assert_eq!(memory.identities[&id].below, BTreeMap::from([(String::new(), 1_800_000_000)]));
}

/// Old records do not name the instance of a report, so each certificate counts as an instance without a report.
#[test]
fn records_from_before_instances_were_distinguished_count_for_none() {
    let id = "spiffe://cluster.local/ns/shop/sa/cart";
    let [old, new] = ["0a", "0b"].map(|digits| digits.repeat(32));
    let image = format!(
        r#"{{"tokens":[],"keys":[["{old}","{id}",1800000000]],"identities":[["{id}",1800000000,"ab"]],"below":[]}}"#
    );
    let mut memory = Memory::from_image(serde_json::from_str(&image).unwrap()).unwrap();
    for record in [
        format!(
            r#"{{"Issued":{{"id":"{id}","key":"{new}","serial":"40","not_after":1800000600,"token":null,"anchor":"a0"}}}}"#
        ),
        format!(r#"{{"Bundle":{{"id":"{id}","digest":"ab"}}}}"#),
    ] {
        memory.replay(serde_json::from_str(&record).unwrap()).unwrap();
    }
    let known = |memory: &Memory| -> Vec<_> {
        let all = memory.instances().iter();
        all.map(|(key, one)| (key.to_string(), one.not_after_unix, one.reported.clone(), one.last_seen_unix)).collect()
    };
    let expected = [(old, 1_800_000_000, None, 0), (new, 1_800_000_600, None, 0)];
    assert_eq!(known(&memory), expected);
    let again = serde_json::from_str(&serde_json::to_string(&memory.image()).unwrap()).unwrap();
    assert_eq!(known(&Memory::from_image(again).unwrap()), expected);
}

#[test]
fn the_names_of_journal_records_stay_readable() {
    let (id, key) = ("spiffe://cluster.local/ns/shop/sa/cart", "01".repeat(32));
    let lines = [
        format!(
            r#"{{"Issued":{{"id":"{id}","key":"{key}","serial":"40","not_after":1800000000,"token":null,"anchor":"a0","instance":"{key}","at":7,"told":"ab"}}}}"#
        ),
        format!(r#"{{"Told":{{"id":"{id}","instance":"{key}","until":1800000000,"digest":"ab","at":8}}}}"#),
    ];
    for line in lines {
        let record: Record = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), line);
    }
}
