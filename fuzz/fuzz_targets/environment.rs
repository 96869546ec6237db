//! The environment of a call, a variable a line, `CNI_ARGS` above all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb::cni::Attachment;
use plumb::cni::conf::{interface_name_fault, is_identifier};
use plumb::cni::env::Environment;
use plumb::plugins::ALL;
use plumb_fuzz::{check_error, read, request};

const CONF: &[u8] = br#"{"cniVersion":"1.1.0","name":"net","type":"bridge",
    "ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/16"}],[{"subnet":"fd01::/64"}]]}}"#;

fuzz_target!(|text: &[u8]| {
    // As it is taken from the environment: what is no text is marked as such.
    let text = String::from_utf8_lossy(text);
    let variable = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(other, _)| *other == name).map(|(_, value)| value.to_owned())
    };
    let mut env = match Environment::read(variable) {
        Ok(env) => env,
        Err(error) => return check_error(&error),
    };
    // To open a namespace is a matter of the kernel's.
    env.netns.clear();
    let (container, ifname) = (env.container.clone(), env.ifname.clone());
    let of_attachment = env.command.is_of_attachment();
    let Some(request) = request(env, CONF) else { return };
    if of_attachment {
        assert!(is_identifier(&container), "{container:?}");
        assert_eq!(interface_name_fault(&ifname), None, "{ifname:?}");
        let attachment = request.attachment();
        assert_eq!(Attachment::from_label(&attachment.label()).as_ref(), Some(&attachment));
        assert_eq!(attachment.host_link().len(), 15);
        assert_eq!(interface_name_fault(&attachment.host_link()), None);
        assert!(
            attachment.host_mac().is_assignable() && attachment.container_mac().is_assignable()
        );
        if let Err(error) = attachment.check_length() {
            check_error(&error);
        }
    }
    if let Err(error) = request.args() {
        check_error(&error);
    }
    for plugin in ALL {
        if let Err(error) = read(plugin, &request) {
            check_error(&error);
        }
    }
});
