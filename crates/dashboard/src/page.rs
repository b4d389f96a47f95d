//! The page: one column of sections, the most urgent first.

use portcullis_api::Mode;

use crate::headline::{Headline, headline};
use crate::html::Html;
use crate::svg::{choose, class, glyph, graph};
use crate::view::{Lock, PortStatus, Refused, View};
use portcullis_report::{ago, length};

/// The whole page is below this. Lists end earlier, each when the content has as many bytes as its mark says.
pub const MAX_PAGE_BYTES: usize = 60 * 1024;
const STYLE: &str = include_str!("style.css");

/// What belongs to the server and not to the view.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Paths of further pages, with their descriptions.
    pub links: Vec<(&'static str, &'static str)>,
}

/// The page as a browser loads it. Its script is at `/dashboard.js`, and it listens to `/events`.
#[must_use]
pub fn page(view: &View, frame: &Frame) -> String {
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>");
    html.raw(match headline(view).lock {
        Some(Lock::Closed) => "\u{2713} ",
        Some(Lock::Half | Lock::Open) => "! ",
        None => "",
    });
    html.text(&view.title).raw(" - portcullis</title><style>").raw(STYLE).raw("</style></head><body><header><b>");
    html.text(&view.title)
        .raw("</b><span>Portcullis: is all traffic mTLS?</span><span id=live role=status>loaded</span></header><main>");
    html.append(&content(view)).raw("</main><footer>");
    for (path, description) in &frame.links {
        html.raw("<a href=\"").raw(path).raw("\" title=\"").raw(description).raw("\">").raw(path).raw("</a>");
    }
    html.raw("</footer><script src=\"/dashboard.js\" defer></script></body></html>\n");
    html.into_string()
}

/// What changes: the content of the element `main`.
#[must_use]
pub fn fragment(view: &View) -> String {
    content(view).into_string()
}

fn content(view: &View) -> Html {
    let mut content = Html::default();
    let html = &mut content;
    verdict(html, &headline(view), view);
    traffic(html, view);
    plaintext(html, view);
    refused(html, view);
    ports(html, view);
    connections(html, view);
    html.raw("<div class=two>");
    certificates(html, view);
    changes(html, view);
    html.raw("</div>");
    content
}

fn verdict(html: &mut Html, Headline { lock, sentence, reasons }: &Headline, view: &View) {
    let kind = lock.map_or("none", |lock| class(Some(lock)));
    html.raw("<div class=\"verdict ").raw(kind).raw("\"><svg viewBox=\"-9 -10 18 19\" aria-hidden=true>");
    html.raw(glyph(Some(lock.unwrap_or(Lock::Open)))).raw("</svg><div><h1>").text(sentence).raw("</h1>");
    if !reasons.is_empty() {
        html.raw("<ul>");
        for reason in reasons {
            html.raw("<li>").text(reason).raw("</li>");
        }
        html.raw("</ul>");
    }
    html.raw("<p class=sub>").number(view.answered as u64).raw(" of ").number(view.asked as u64);
    html.raw(" sidecars answered. Traffic that sidecars saw in the last hour, without what a port let through before it became STRICT. ").show(view.now).raw("</p></div></div>");
}

fn traffic(html: &mut Html, view: &View) {
    let drawn = choose(view);
    html.raw("<section id=traffic><h2>Traffic</h2>");
    if view.edges.is_empty() {
        html.raw(
            "<p class=sub>No connection was seen. Call a service, and it appears here within seconds.</p></section>",
        );
        return;
    }
    graph(html, view, &drawn);
    html.raw("<p class=key>");
    for (lock, text) in [
        (Some(Lock::Closed), "all mTLS"),
        (Some(Lock::Half), "some mTLS"),
        (Some(Lock::Open), "no mTLS"),
        (None, "all refused"),
    ] {
        symbol(html, lock);
        html.raw(text).raw("</span>");
    }
    if drawn.nodes_left_out > 0 {
        html.raw("<span>").number(drawn.nodes_left_out as u64).raw(" more are not drawn</span>");
    }
    html.raw("</p></section>");
}

/// A lock in a line of text; the caller ends the element with `</span>`.
fn symbol(html: &mut Html, lock: Option<Lock>) {
    html.raw("<span class=").raw(class(lock)).raw("><svg viewBox=\"-9 -9 18 18\" role=img aria-label=\"").raw(
        match lock {
            Some(Lock::Closed) => "all mTLS",
            Some(Lock::Half) => "some mTLS",
            Some(Lock::Open) => "no mTLS",
            None => "all refused",
        },
    );
    html.raw("\">").raw(glyph(lock)).raw("</svg> ");
}

fn plaintext(html: &mut Html, view: &View) {
    if view.plaintext.is_empty() {
        return;
    }
    html.raw("<section><h2>Clients without mTLS <small>in the last 7 days; STRICT would refuse them</small></h2>");
    table(html, &["Client", "Calls", "How", "Connections", "Last"]);
    rows(html, 23_500, &view.plaintext, |html, client| {
        html.raw("<tr><td><b>").text(&client.name).raw("</b>");
        if let Some(address) = &client.address {
            html.raw(" <span class=sub>").text(address).raw("</span>");
        }
        html.raw("</td><td>").text(&client.to).raw("</td><td class=w>").raw(client.transport);
        html.raw("</td><td class=w data-l=connections>").number(client.connections).raw("</td>");
        when(html, view, client.last_seen);
        html.raw("</tr><tr class=fix><td colspan=5>").remedy(&client.fix).raw("</td></tr>");
    });
    html.raw("</section>");
}

/// What a policy refused, apart from what failed on the way to being decided: the one is meant, the other is to be mended.
fn refused(html: &mut Html, view: &View) {
    let (refused, failed): (Vec<&Refused>, Vec<&Refused>) = view.refused.iter().partition(|one| !one.policy.is_empty());
    if !refused.is_empty() {
        html.raw("<section><h2>Refused connections <small>by a policy</small></h2>");
        table(html, &["Client", "Called", "Reason", "By policy", "How often", "Last"]);
        not_let_through(html, 26_000, view, &refused);
    }
    if !failed.is_empty() {
        html.raw("<section><h2>Failed connections <small>by no policy: handshakes, limits, apps that do not answer</small></h2>");
        table(html, &["Client", "Called", "Reason", "", "How often", "Last"]);
        not_let_through(html, 28_500, view, &failed);
    }
}

fn not_let_through(html: &mut Html, mark: usize, view: &View, all: &[&Refused]) {
    rows(html, mark, all, |html, refused| {
        html.raw("<tr><td><b>").text(&refused.from).raw("</b></td><td>").text(&refused.to);
        html.raw("</td><td><code>").text(&refused.reason).raw("</code></td><td>").text(&refused.policy);
        html.raw("</td><td class=w data-l=times>").number(refused.count).raw("</td>");
        when(html, view, refused.at);
        html.raw("</tr>");
        if !refused.hint.is_empty() {
            html.raw("<tr class=fix><td colspan=6>").remedy(&refused.hint).raw("</td></tr>");
        }
    });
    html.raw("</section>");
}

fn ports(html: &mut Html, view: &View) {
    html.raw("<section><h2>Ports <small>and whether each may become STRICT, after 7 days of traffic or what there is of them</small></h2>");
    table(html, &["Workload", "Port", "Mode", "mTLS", "Ready for STRICT", "Decided by"]);
    rows(html, 33_000, &view.ports, |html, port| {
        html.raw("<tr><td>").text(&port.workload).raw("</td><td class=w data-l=port>");
        match port.port {
            Some(port) => html.number(port),
            None => html.raw("<span title=\"ports that no policy, listener or connection names\">all others</span>"),
        };
        html.raw("</td><td class=w><span class=\"tag ").raw(match port.mode {
            Mode::Strict => "closed",
            Mode::Permissive => "half",
            Mode::Disable => "open",
            Mode::Unknown => "",
        });
        html.raw("\">").raw(port.mode.as_str()).raw("</span></td><td class=w data-l=mTLS>");
        match port.mtls_percent {
            Some(percent) => html.number(percent).raw("%"),
            None => html.raw("-"),
        };
        html.raw("</td><td class=w>");
        match port.verdict {
            PortStatus::Strict => html.raw("<span class=sub>it is</span>"),
            PortStatus::Ready => html
                .raw("<span class=\"tag closed\">READY</span> <span class=sub>seen for ")
                .text(&length(port.observed_seconds))
                .raw("</span>"),
            PortStatus::Exception => html.raw("<span class=\"tag half\">EXCEPTION</span>"),
            // Nobody counts what comes to each of them.
            PortStatus::NoData if port.port.is_none() => html.raw("<span class=sub>not seen</span>"),
            PortStatus::NotReady => html.raw("<span class=\"tag open\">NOT READY</span>"),
            PortStatus::NoData => html.raw("<span class=tag>NO DATA</span>"),
        };
        if let Some(terms) = &port.exception {
            html.raw(" <span class=sub>").text(terms).raw("</span>");
        }
        html.raw("</td><td>")
            .text(&port.decided_by)
            .raw(" <span class=sub>")
            .text(&port.location)
            .raw("</span></td></tr>");
    });
    html.raw("</section>");
}

/// What the graph shows, for readers that do not see it and for small screens.
fn connections(html: &mut Html, view: &View) {
    if view.edges.is_empty() {
        return;
    }
    html.raw("<section id=connections><h2>Connections</h2>");
    table(html, &["", "Client", "Server", "mTLS", "Plaintext", "Refused", "Last"]);
    let mut edges: Vec<_> = view.edges.iter().collect();
    edges.sort_by_key(|edge| (edge.lock() == Some(Lock::Closed), std::cmp::Reverse(edge.last_seen)));
    rows(html, 38_000, &edges, |html, edge| {
        let name = |node: usize| view.nodes.get(node).map_or("", |node| node.name.as_str());
        html.raw("<tr><td class=w>");
        symbol(html, edge.lock());
        html.raw("</span></td><td>")
            .text(name(edge.from))
            .raw("</td><td>")
            .text(name(edge.to))
            .raw(":")
            .number(edge.port);
        html.raw("</td><td class=w data-l=mTLS>")
            .number(edge.mtls)
            .raw("</td><td class=w data-l=plaintext>")
            .number(edge.plaintext);
        html.raw("</td><td class=w data-l=refused>").number(edge.refused).raw("</td>");
        when(html, view, edge.last_seen);
        html.raw("</tr>");
    });
    html.raw("</section>");
}

fn certificates(html: &mut Html, view: &View) {
    html.raw("<section><h2>Certificates</h2>");
    table(html, &["Workload", "Time left", ""]);
    rows(html, 40_500, &view.certificates, |html, certificate| {
        let left = certificate.not_after.seconds_since(view.now);
        let lifetime = certificate.not_after.seconds_since(certificate.not_before).max(1);
        html.raw("<tr><td title=\"")
            .text(&certificate.identity)
            .raw("\">")
            .text(&certificate.workload)
            .raw("</td><td class=w>");
        match &certificate.problem {
            Some(problem) => html.raw("<span class=\"tag open\">").text(problem).raw("</span>"),
            None => html.text(&length(left)),
        };
        // Renewed at half of its life: below a quarter something is wrong.
        html.raw("</td><td class=w><meter min=0 max=100 low=25 high=26 optimum=100 value=");
        html.number(u128_percent(left, lifetime)).raw(" aria-label=\"time left\"></meter></td></tr>");
    });
    html.raw("</section>");
}

fn u128_percent(part: u64, all: u64) -> i128 {
    i128::from(part).saturating_mul(100).checked_div(i128::from(all)).unwrap_or(0).min(100)
}

fn changes(html: &mut Html, view: &View) {
    html.raw("<section><h2>What changed</h2>");
    if view.changes.is_empty() {
        html.raw("<p class=sub>Nothing since the sidecars started.</p></section>");
        return;
    }
    table(html, &["When", "Workload", "What"]);
    rows(html, 43_000, &view.changes, |html, change| {
        html.raw("<tr>");
        when(html, view, change.at);
        html.raw("<td>").text(&change.workload).raw("</td><td>").text(&change.what).raw("</td></tr>");
    });
    html.raw("</section>");
}

fn when(html: &mut Html, view: &View, at: portcullis_api::Timestamp) {
    html.raw("<td class=w title=\"").show(at).raw("\">").text(&ago(at, view.now)).raw("</td>");
}

fn table(html: &mut Html, headings: &[&'static str]) {
    html.raw("<div class=scroll><table class=stack><thead><tr>");
    for heading in headings {
        html.raw("<th scope=col>").raw(heading).raw("</th>");
    }
    html.raw("</tr></thead><tbody>");
}

/// The rows until the content has this many bytes; then it says how many are left. Ends the table.
fn rows<T>(html: &mut Html, mark: usize, all: &[T], mut write: impl FnMut(&mut Html, &T)) {
    let mut written = 0;
    for row in all {
        if html.len() >= mark {
            break;
        }
        write(html, row);
        written += 1;
    }
    html.raw("</tbody></table></div>");
    if written < all.len() {
        let left = all.len().saturating_sub(written);
        html.raw("<p class=sub>").number(left as u64).raw(" more are not shown.</p>");
    }
}

#[cfg(test)]
mod tests {
    use portcullis_api::Timestamp;

    use super::*;
    use crate::view::{Certificate, Change, Edge, Node, PlaintextClient, Port};

    /// As much of everything as one likes, with names that are as long in HTML as they can be.
    fn hostile(count: usize) -> View {
        let long = "\"".repeat(500);
        let at = Timestamp::from_unix(1);
        let name = || long.clone();
        View {
            title: name(),
            unreachable: vec![(name(), name()); count],
            nodes: vec![Node { name: name(), namespace: name(), is_meshed: false, mode: None }; count],
            edges: (0..count)
                .map(|n| Edge {
                    from: n,
                    to: (n * 7 + 1) % count,
                    port: 65535,
                    mtls: u64::MAX,
                    plaintext: u64::MAX,
                    refused: 1,
                    last_seen: at,
                    is_exception: false,
                })
                .collect(),
            plaintext: vec![
                PlaintextClient {
                    name: name(),
                    address: Some(name()),
                    to: name(),
                    transport: "plaintext",
                    connections: u64::MAX,
                    last_seen: at,
                    fix: name(),
                    has_sidecar_now: false,
                    is_exception: false
                };
                count
            ],
            refused: vec![
                Refused {
                    at,
                    from: name(),
                    to: name(),
                    reason: name(),
                    policy: name(),
                    hint: name(),
                    count: u64::MAX
                };
                count
            ],
            ports: vec![
                Port {
                    workload: name(),
                    port: None,
                    mode: Mode::Permissive,
                    decided_by: name(),
                    location: name(),
                    mtls_percent: None,
                    verdict: PortStatus::NotReady,
                    observed_seconds: 0,
                    exception: Some(name())
                };
                count
            ],
            certificates: vec![
                Certificate {
                    workload: name(),
                    identity: name(),
                    not_before: at,
                    not_after: at,
                    problem: Some(name())
                };
                count
            ],
            changes: vec![Change { at, workload: name(), what: name() }; count],
            ..View::default()
        }
    }

    #[test]
    fn a_page_stays_small_whatever_is_on_it() {
        for count in [1, 10, 1_000] {
            let page = page(&hostile(count), &Frame::default());
            assert!(page.len() <= MAX_PAGE_BYTES, "{count}: {}", page.len());
            assert!(page.ends_with("</html>\n") && page.contains("Certificates"));
        }
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let page = page(&hostile(1_000), &Frame::default());
        assert!(page.contains("more are not drawn") && page.contains("more are not shown"));
    }

    #[test]
    fn the_fragment_is_the_content_of_the_page() {
        let view = hostile(3);
        assert!(page(&view, &Frame::default()).contains(&fragment(&view)));
    }
}
