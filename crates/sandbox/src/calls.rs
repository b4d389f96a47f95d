//! Blocked system calls: seccomp.
//!
//! A deny list of system calls that the proxy never needs and an attacker would use; they fail with `EPERM`. An allow list
//! would depend on the libc and the kernel, and end the process on the day they change.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Blocked on every architecture.
const DENIED: &[libc::c_long] = &[
    // Executing another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Reading other processes, or taking their descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Namespaces.
    libc::SYS_setns,
    libc::SYS_unshare,
    // Files past the folders that lead to them.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // Loading a kernel or modules.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    // Kernel interfaces with a history of vulnerabilities.
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The kernel's key rings.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The machine as a whole.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const OF_THIS_ARCHITECTURE: &[libc::c_long] =
    &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const OF_THIS_ARCHITECTURE: &[libc::c_long] = &[];

/// The second way into an x86-64 kernel: 32-bit pointers, calls under the same architecture with this bit set.
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;
/// Calls that have a number of their own there: execve, ptrace, kexec_load, process_vm_readv, process_vm_writev, execveat.
#[cfg(target_arch = "x86_64")]
const OF_X32: &[libc::c_long] = &[520, 521, 528, 539, 540, 545];

/// Blocks the calls above in every thread of this process and in every child. A call of a foreign architecture ends the
/// process.
///
/// # Errors
/// If the kernel rejects the filter; nothing is blocked then.
pub fn deny() -> Result<(), String> {
    let program = program().map_err(|error| error.to_string())?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<i64, _> = denied().map(|number| (number, Vec::new())).collect();
    #[allow(clippy::cast_sign_loss, reason = "error numbers are small and positive")]
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()
}

#[cfg(not(target_arch = "x86_64"))]
fn denied() -> impl Iterator<Item = i64> {
    DENIED.iter().chain(OF_THIS_ARCHITECTURE).copied()
}

#[cfg(target_arch = "x86_64")]
fn denied() -> impl Iterator<Item = i64> {
    let plain = || DENIED.iter().chain(OF_THIS_ARCHITECTURE).chain(OF_X32).copied();
    plain().chain(plain().map(|number| number | X32))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_call_is_named_once_and_the_program_fits() {
        let all: Vec<i64> = denied().collect();
        let distinct: BTreeSet<i64> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len());
        // The kernel's limit.
        assert!(program().unwrap().len() <= 4096);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_other_way_in_is_closed_too() {
        let all: BTreeSet<i64> = denied().collect();
        for number in [libc::SYS_execve, libc::SYS_mount | X32, 520 | X32, 545 | X32] {
            assert!(all.contains(&number), "{number}");
        }
    }
}
