//! The name of a set of policies: a digest that sidecars tell, and that a command can compute from the folder.

use portcullis_tls::ContentDigest;

/// A digest of a policy folder: equal for equal contents, whatever the files are called and wherever they are mounted.
pub(crate) fn set_hash<'f>(files: impl IntoIterator<Item = &'f [u8]>) -> String {
    let mut contents: Vec<String> = files.into_iter().map(|file| ContentDigest::of(file).to_string()).collect();
    contents.sort_unstable();
    ContentDigest::of(contents.join("\n").as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::set_hash;

    #[test]
    fn equal_contents_have_one_hash_in_any_order() {
        let hash = |files: &[&str]| set_hash(files.iter().map(|text| text.as_bytes()));
        assert_eq!(hash(&["one", "two"]), hash(&["two", "one"]));
        let all = [hash(&[]), hash(&["one"]), hash(&["onetwo"]), hash(&["one", "two"])];
        assert!(all.iter().enumerate().all(|(index, one)| !all[..index].contains(one)), "{all:?}");
        assert!(all.iter().all(|hash| hash.len() == 64));
    }
}
