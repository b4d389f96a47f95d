//! `get`, `apply`, `diff` and `delete` on a policy folder: kubectl's words, and files that change only where they should.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::support::raw::Mesh;
use super::support::{BIN, POLICY, Ran, Scene, eventually, run};

const SHOP: &str = "# The shop's policies.\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\n\
                    spec: {mtls: {mode: PERMISSIVE}} # until June\n---\n# Only the cart.\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                    metadata:\n  name: cart\n  namespace: shop\nspec:\n  selector: {matchLabels: {app: cart}}\n  mtls: {mode: STRICT}\n  portLevelMtls:\n    8080: {mode: DISABLE}\n";

fn policy(name: &str, mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("policies")).unwrap();
        fs::write(folder.path().join("policies/shop.yaml"), SHOP).unwrap();
        Self(folder)
    }

    /// Name to content of every file of the folder, drafts too.
    fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.0.path().join("policies")).unwrap();
        entries
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
            .collect()
    }

    fn policies(&self) -> String {
        self.0.path().join("policies").to_str().unwrap().to_owned()
    }

    fn input(&self, text: &str) -> String {
        let path = self.0.path().join("input.yaml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&[arguments, &["--policies", &self.policies()]].concat())
    }

    fn apply(&self, text: &str, more: &[&str]) -> Ran {
        let input = self.input(text);
        self.run(&[&["apply", "-f", &input], more].concat())
    }
}

#[test]
fn get_lists_what_kubectl_lists() {
    let folder = Folder::new();
    let all = folder.run(&["get", "peerauthentication", "-A"]);
    // The age is that of the file, since no document has a time.
    let ageless = |ran: &Ran| -> Vec<String> {
        let without = |line: &str| {
            let (rest, age) = line.rsplit_once("   ").unwrap();
            assert!(age == "AGE" || age.strip_suffix('s').is_some_and(|age| age.parse::<u32>().is_ok()), "{line}");
            rest.trim_end().to_owned()
        };
        ran.out.lines().map(without).collect()
    };
    assert_eq!(all.code, Some(0), "{}", all.err);
    assert_eq!(
        ageless(&all),
        ["NAMESPACE   NAME      MODE", "shop        cart      STRICT", "shop        default   PERMISSIVE"]
    );
    let own = folder.run(&["get", "pa", "-n", "shop", "default"]);
    assert_eq!(ageless(&own), ["NAME      MODE", "default   PERMISSIVE"]);
    let wide = folder.run(&["get", "pa", "-n", "shop", "-o", "wide"]).out;
    assert!(wide.contains("workload    app=cart   8080:DISABLE   <unknown>   Active   "), "{wide}");
    assert!(wide.contains("shop.yaml:8"), "{wide}");
    let names = folder.run(&["get", "peerauthentications.security.istio.io", "-A", "-o", "name"]);
    assert_eq!(names.out, "peerauthentication.security.istio.io/cart\npeerauthentication.security.istio.io/default\n");
    let empty = folder.run(&["get", "ap", "-A"]);
    assert_eq!((empty.code, empty.out.as_str(), empty.err.as_str()), (Some(0), "", "No resources found\n"));
    let empty = folder.run(&["get", "dr", "-n", "shop"]);
    assert_eq!((empty.code, empty.err.as_str()), (Some(0), "No resources found in shop namespace.\n"));
    let missing = folder.run(&["get", "pa", "x", "-n", "shop"]);
    assert_eq!(
        (missing.code, missing.err.as_str()),
        (Some(1), "Error from server (NotFound): peerauthentications.security.istio.io \"x\" not found\n")
    );
    assert_eq!(folder.run(&["get", "pods"]).code, Some(64));
    assert_eq!(run(&["get", "pa"]).code, Some(64));
}

#[test]
fn the_wide_columns_name_the_workloads_that_a_policy_selects() {
    let scene = Scene::new("PERMISSIVE");
    let policies = scene.path().join("policies");
    let other = POLICY
        .replace("MODE", "STRICT")
        .replace("name: default", "name: other")
        .replace("spec: {", "spec: {selector: {matchLabels: {app: web}}, ");
    fs::write(policies.join("other.yaml"), other).unwrap();
    let admin = format!("--admin={}", scene.cart.admin);
    let ran = run(&["get", "pa", "-A", "-o", "wide", "--policies", policies.to_str().unwrap(), &admin]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let rows: Vec<Vec<&str>> = ran
        .out
        .lines()
        .map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(rows[0][4..8], ["SCOPE", "SELECTOR", "PORTS", "WORKLOADS"], "{}", ran.out);
    assert_eq!((rows[1][1], rows[1][7], rows[2][1], rows[2][7]), ("default", "cart", "other", "<none>"), "{}", ran.out);
}

#[test]
fn what_get_prints_as_yaml_can_be_applied_again() {
    let folder = Folder::new();
    let one = folder.run(&["get", "pa", "cart", "-n", "shop", "-o", "yaml"]);
    assert!(
        one.out.starts_with("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n"),
        "{}",
        one.out
    );
    let again = folder.apply(&one.out, &[]);
    assert_eq!((again.code, again.out.as_str()), (Some(0), "peerauthentication.security.istio.io/cart unchanged\n"));
    let list = folder.run(&["get", "pa", "-A", "-o", "yaml"]);
    let again = folder.apply(&list.out, &[]);
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert_eq!(again.out.matches("unchanged").count(), 2, "{}", again.out);
    assert_eq!(folder.files(), BTreeMap::from([("shop.yaml".to_owned(), SHOP.to_owned())]));
}

#[test]
fn apply_changes_one_document_and_tells_what_that_means() {
    let folder = Folder::new();
    let input = policy("default", "STRICT") + "---\n" + &policy("new", "STRICT").replace("shop", "pay");
    let dry = folder.apply(&input, &["--dry-run=server"]);
    let wanted =
        "peerauthentication.security.istio.io/default configured\npeerauthentication.security.istio.io/new created\n";
    assert_eq!((dry.code, dry.out), (Some(0), wanted.replace('\n', " (server dry run)\n")));
    assert_eq!(folder.files()["shop.yaml"], SHOP);
    let ran = folder.apply(&input, &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), wanted), "{}", ran.err);
    let changed = SHOP.replace("spec: {mtls: {mode: PERMISSIVE}} # until June", "spec: {mtls: {mode: STRICT}}");
    assert_eq!(folder.files()["shop.yaml"], changed);
    assert_eq!(folder.files()["pay.peerauthentication.new.yaml"], policy("new", "STRICT").replace("shop", "pay"));
    assert!(ran.err.contains("shop/*:* PERMISSIVE -> STRICT\n"), "{}", ran.err);
    assert!(ran.err.contains("pay/*:* PERMISSIVE -> STRICT\n") && !ran.err.contains("cart"), "{}", ran.err);
    let again = folder.apply(&input, &[]);
    assert_eq!((again.out.matches("unchanged").count(), again.err.as_str()), (2, ""));
    assert_eq!(folder.files().len(), 2, "no draft is left");
}

#[test]
fn an_apply_that_fails_changes_no_byte() {
    let folder = Folder::new();
    let before = folder.files();
    let refused = |text: &str, more: &[&str]| {
        let ran = folder.apply(text, more);
        assert_eq!(folder.files(), before, "{text}");
        assert_eq!((ran.code, ran.out.as_str()), (Some(65), ""), "{text}: {}", ran.err);
        ran.err
    };
    let typo = refused(&policy("default", "STRIC"), &[]);
    assert!(typo.contains("input.yaml:4:") && typo.contains("[unsupported-mode]"), "{typo}");
    let ports = refused(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\nspec: {portLevelMtls: {80: {mode: STRICT}}}\n",
        &[],
    );
    assert!(ports.contains("[ports-need-selector]"), "{ports}");
    let other = refused(&policy("default", "STRICT"), &["-n", "pay"]);
    assert!(
        other.contains("the namespace from the provided object \"shop\" does not match the namespace \"pay\""),
        "{other}"
    );
    refused(&(policy("a", "STRICT") + "---\n" + &policy("a", "STRICT")), &[]);
    refused("# nothing\n", &[]);
    // A folder that the proxy refuses stays refused, whatever is applied beside the mistake.
    fs::write(Path::new(&folder.policies()).join("broken.yaml"), policy("b", "STRIC")).unwrap();
    let before = folder.files();
    let ran = folder.apply(&policy("default", "STRICT"), &[]);
    assert!(ran.code == Some(65) && ran.err.contains("broken.yaml:4:"), "{}", ran.err);
    assert_eq!(folder.files(), before);
    // And one that nothing can be written into.
    fs::remove_file(Path::new(&folder.policies()).join("broken.yaml")).unwrap();
    if fs::write("/proc/self/comm", "x").is_ok() && !is_root() {
        fs::set_permissions(folder.policies(), fs::Permissions::from_mode(0o555)).unwrap();
        assert_eq!(folder.apply(&policy("default", "STRICT"), &[]).code, Some(77));
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

#[test]
fn prune_and_delete_take_out_documents_and_empty_files() {
    let folder = Folder::new();
    assert_eq!(folder.apply(&policy("default", "STRICT"), &["--prune"]).code, Some(64));
    let pruned = folder.apply(&policy("default", "STRICT"), &["--prune", "-n", "shop"]);
    assert_eq!(
        pruned.out,
        "peerauthentication.security.istio.io/default configured\npeerauthentication.security.istio.io/cart pruned\n",
        "{}",
        pruned.err
    );
    let left = &folder.files()["shop.yaml"];
    assert!(left.starts_with("# The shop's policies.\n") && !left.contains("cart"), "{left}");
    let gone = folder.run(&["delete", "pa/default", "-n", "shop"]);
    assert_eq!(gone.out, "peerauthentication.security.istio.io \"default\" deleted\n", "{}", gone.err);
    assert!(gone.err.contains("shop/*:* STRICT -> PERMISSIVE"), "{}", gone.err);
    assert!(folder.files().is_empty());
    let again = folder.run(&["delete", "pa", "default", "-n", "shop"]);
    assert_eq!(
        (again.code, again.err.as_str()),
        (Some(1), "Error from server (NotFound): peerauthentications.security.istio.io \"default\" not found\n")
    );
    assert_eq!(folder.run(&["delete", "pa", "default", "-n", "shop", "--ignore-not-found"]).code, Some(0));
    assert_eq!(folder.run(&["delete", "pa", "-n", "shop"]).code, Some(64));
}

#[test]
fn diff_is_a_unified_diff_that_patch_takes() {
    let folder = Folder::new();
    let input = folder.input(&policy("default", "STRICT"));
    let ran = folder.run(&["diff", "-f", &input]);
    let name = "security.istio.io.v1.PeerAuthentication.shop.default";
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.out.starts_with(&format!("diff -u -N LIVE/{name} MERGED/{name}\n--- LIVE/{name}\n+++ MERGED/{name}\n@@ -")),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("\n-    mode: PERMISSIVE\n+    mode: STRICT\n"), "{}", ran.out);
    let live = folder.0.path().join("live.yaml");
    fs::write(&live, folder.run(&["get", "pa", "default", "-n", "shop", "-o", "yaml"]).out).unwrap();
    let patch = Command::new("git")
        .args(["apply", "--verbose", "-p0", "--unsafe-paths"])
        .current_dir(folder.0.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut patch = patch.unwrap();
    let text = ran.out.replace(&format!("LIVE/{name}"), "live.yaml").replace(&format!("MERGED/{name}"), "live.yaml");
    patch.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(patch.wait().unwrap().success(), "{text}");
    assert!(fs::read_to_string(&live).unwrap().contains("mode: STRICT"));
    let same = folder.input(&policy("default", "PERMISSIVE"));
    let none = folder.run(&["diff", "-f", &same]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""));
}

#[test]
fn a_running_sidecar_takes_what_was_applied_from_standard_input() {
    let mesh = Mesh::new("PERMISSIVE");
    let (cart, _listen) = mesh.cart("127.0.0.1:1".parse().unwrap(), |_| ());
    let config = mesh.path().join("cart.yaml");
    let mut apply = Command::new(BIN)
        .args(["apply", "-f", "-", "-c", config.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    apply.stdin.take().unwrap().write_all(policy("default", "STRICT").as_bytes()).unwrap();
    let out = apply.wait_with_output().unwrap();
    assert_eq!(out.stdout, b"peerauthentication.security.istio.io/default configured\n");
    eventually("the sidecar is strict", || {
        let answer: String = cart.get("/explain?port=8080")?.split_whitespace().collect();
        answer.contains("\"port\":8080,\"mode\":\"STRICT\"").then_some(())
    });
}
