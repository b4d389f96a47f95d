//! What several proxies have, one block for each.

use portcullis_api::ProxyInfo;

use crate::commands::selection::title;

/// What one proxy has.
pub(super) struct Block<T> {
    pub(super) proxy: ProxyInfo,
    pub(super) items: Vec<T>,
}

/// The blocks in order of their names, each under the name of its workload. A single one stands alone, as istioctl prints it.
pub(super) fn blocks<T>(blocks: &[Block<T>], text: impl Fn(&[T]) -> String) -> String {
    match blocks {
        [one] => text(&one.items),
        many => {
            let block =
                |block: &Block<T>| format!("{}:\n{}", crate::output::clean(&title(&block.proxy)), text(&block.items));
            many.iter().map(block).collect::<Vec<_>>().join("\n")
        }
    }
}

pub(super) fn sort<T>(blocks: &mut [Block<T>]) {
    blocks.sort_by_key(|block| (block.proxy.namespace.clone(), block.proxy.name.clone()));
}
