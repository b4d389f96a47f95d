//! A certificate, as a peer sends it, before anything about it is known.
//!
//! - Nothing panics.
//! - What strictness accepts, every relaxation accepts with the same identity and without using the relaxation.
//! - No certificate is a workload's leaf and a signer as well; trailing bytes are never accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::leaf::{self, Compat, Relaxed, Role};
use portcullis_identity::{SpiffeId, signer};

fuzz_target!(|der: &[u8]| {
    let (signs, roots) = (signer::check(der).is_ok(), signer::check_root(der).is_ok());
    for role in [Role::Client, Role::Server] {
        let strict = leaf::check(der, Compat::default(), role);
        if let Ok(leaf) = &strict {
            assert_eq!(SpiffeId::parse(leaf.id.as_str()).as_ref(), Ok(&leaf.id));
            assert!(!leaf.id.path().is_empty());
            assert_eq!(leaf.relaxed, Relaxed::default());
        }
        for (eku, ku_critical) in [(true, false), (false, true), (true, true)] {
            match (&strict, leaf::check(der, Compat { eku, ku_critical }, role)) {
                (Ok(_), relaxed) => assert_eq!(relaxed, strict),
                (Err(_), Ok(leaf)) => {
                    assert!(leaf.relaxed != Relaxed::default(), "accepted without a reason");
                    assert!((eku || !leaf.relaxed.eku) && (ku_critical || !leaf.relaxed.ku_critical));
                    assert!(!signs && !roots);
                }
                (Err(error), Err(_)) => assert!(!error.class().is_empty()),
            }
        }
        if strict.is_ok() {
            assert!(!signs && !roots, "a leaf that may sign");
            let trailing = [der, &[0]].concat();
            assert!(leaf::check(&trailing, Compat::default(), role).is_err());
        }
    }
});
