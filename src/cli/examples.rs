//! Two examples for each command, printed under its help.

use clap::Command;

/// Adds the examples to `command`, whose words after `diskdelta` are `path`, and to its
/// subcommands.
pub(super) fn add(command: Command, path: &str) -> Command {
    let names: Vec<_> = command
        .get_subcommands()
        .map(|it| it.get_name().to_owned())
        .collect();
    let command = names.iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(name, |inner| add(inner, path.trim_start()))
    });
    match EXAMPLES.iter().find(|(words, _)| *words == path) {
        Some((_, [first, second])) => {
            let lines = format!("Examples:\n  diskdelta {first}\n  diskdelta {second}");
            command.after_help(lines)
        }
        None => command,
    }
}

const EXAMPLES: &[(&str, [&str; 2])] = &[
    ("info", ["info web.vhd", "info /dev/vg0/web --json"]),
    (
        "map",
        ["map web.vhdx", "map web.vhdx old.manifest --svg week.svg"],
    ),
    (
        "manifest",
        [
            "manifest web.vhd -o web.manifest",
            "manifest /dev/vg0/web -o web.manifest --block-size 1M",
        ],
    ),
    (
        "diff",
        [
            "diff web.vhd /dev/vg0/web",
            "diff web.vhd old.manifest --json",
        ],
    ),
    (
        "sync",
        [
            "sync web.vhd /dev/vg0/web",
            "sync /dev/vg0/web ssh://host/srv/web.raw --retry 20",
        ],
    ),
    (
        "verify",
        [
            "verify web.vhd web.manifest",
            "verify /dev/vg0/web web.manifest --json",
        ],
    ),
    (
        "delta",
        [
            "delta create old.vhd web.vhd -o week.delta",
            "delta apply week.delta old.vhd",
        ],
    ),
    (
        "delta create",
        [
            "delta create old.vhd web.vhd -o week.delta",
            "delta create old.manifest web.vhd -o week.delta --level 9",
        ],
    ),
    (
        "delta apply",
        [
            "delta apply week.delta old.vhd",
            "delta apply week.delta /dev/vg0/web --base touched",
        ],
    ),
    (
        "delta export",
        [
            "delta export week.delta --parent old.vhd --to week.vhd",
            "delta export week.delta --parent old.vhdx --to week.avhdx",
        ],
    ),
    (
        "delta show",
        ["delta show week.delta", "delta show before.undo --json"],
    ),
    (
        "delta merge",
        [
            "delta merge monday.delta tuesday.delta -o both.delta",
            "delta merge 1.delta 2.delta 3.delta -o all.delta --level 9",
        ],
    ),
    (
        "undo",
        [
            "undo before.undo /dev/vg0/web",
            "undo before.undo web.img --target-format raw",
        ],
    ),
    (
        "recover",
        ["recover /dev/vg0/web", "recover --list /srv/disks"],
    ),
    (
        "failback",
        [
            "failback start plan.toml --yes",
            "failback status shop --watch",
        ],
    ),
    (
        "failback check",
        [
            "failback check plan.toml",
            "failback check plan.toml --json",
        ],
    ),
    (
        "failback plan",
        ["failback plan plan.toml", "failback plan plan.toml --json"],
    ),
    (
        "failback start",
        ["failback start plan.toml", "failback start plan.toml --yes"],
    ),
    ("failback run", ["failback run shop", "failback run --all"]),
    (
        "failback status",
        ["failback status", "failback status shop --watch"],
    ),
    (
        "failback complete",
        ["failback complete shop", "failback complete shop --wait"],
    ),
    (
        "failback abort",
        ["failback abort shop", "failback abort shop --by alice"],
    ),
    (
        "failback cancel",
        ["failback cancel shop", "failback cancel shop --restore"],
    ),
    (
        "failback undo",
        [
            "failback undo shop --accept-loss",
            "failback undo shop --accept-loss --restore",
        ],
    ),
    (
        "failback commit",
        ["failback commit shop", "failback commit shop --wait"],
    ),
    (
        "failback reverse",
        ["failback reverse shop", "failback reverse shop --wait"],
    ),
    (
        "failback retry",
        ["failback retry shop", "failback retry shop --detach"],
    ),
    (
        "failback controller",
        [
            "failback controller test --vm spare --disk a=/srv/a.raw ./vm",
            "failback controller test --vm spare --disk a=/srv/a.raw --time-limit 9s ./vm",
        ],
    ),
    (
        "failback controller test",
        [
            "failback controller test --vm spare --disk a=/srv/a.raw ./vm",
            "failback controller test --vm spare --disk a=/srv/a.raw --time-limit 9s ./vm",
        ],
    ),
    (
        "failback test",
        ["failback test shop", "failback test shop --end"],
    ),
    (
        "failback log",
        ["failback log shop", "failback log shop --json"],
    ),
    (
        "failback explain",
        ["failback explain shop", "failback explain shop --json"],
    ),
    (
        "serve",
        [
            "serve --stdio --root /srv/disks --read-only",
            "serve --listen 0.0.0.0:8730 --cert s.pem --key s.key --client-ca ca.pem --root /srv",
        ],
    ),
    ("completions", ["completions bash", "completions zsh"]),
    ("man", ["man", "man --dir /usr/share/man/man1"]),
];
