//! A segment with both its sides: a request with 64 bytes from the application to the daemon, or with 64 such messages, its
//! answer, a delivery of 64 bytes for each, and the buffers handed back.

use xtipc_segment::application::ApplicationSide;
use xtipc_segment::batch::BATCH_MESSAGES_MAX;
use xtipc_segment::daemon::DaemonSide;
use xtipc_segment::layout::Sizes;
use xtipc_segment::{Destination, Meta, Request, SendFlags, ServiceAddress, Submission};

const PAYLOAD: [u8; 64] = [7; 64];
const HONEST: &str = "both sides are ours";

/// See the module.
pub(crate) fn requests_and_deliveries(count: u64) {
    let created = DaemonSide::create(&Sizes::default());
    let (mut daemon, fds) = created.expect("memory for a segment");
    let mut application = ApplicationSide::map(fds).expect("our own segment");
    let address = ServiceAddress {
        type_: 1000,
        instance: 1,
    };
    for tag in 0..count {
        let staged = application.submitter.stage(&PAYLOAD).expect("room");
        let submission = Submission {
            tag,
            socket: 7,
            request: Request::Send {
                flags: SendFlags::empty(),
                destination: Some(Destination::from(address)),
                payload: staged.place(),
            },
        };
        assert_eq!(application.submitter.push(&submission), Ok(true));

        let request = daemon.pop().expect(HONEST).expect("a request");
        let mut sent = [0; PAYLOAD.len()];
        daemon.payload(&request).copy_to(0, &mut sent);
        daemon.complete(request.tag, 0, [0; 2]).expect(HONEST);
        let meta = Meta {
            socket: 7,
            cost: 100,
            ..Meta::default()
        };
        let delivered = daemon.deliver(&meta, sent.len(), |room| room.copy_from_slice(&sent));
        assert!(delivered.is_ok(), "there is room");

        let answer = application.receiver.next_completion().expect(HONEST);
        assert_eq!(answer.expect("an answer").tag, tag);
        application.submitter.unstage(staged);
        let delivery = application.receiver.next_delivery().expect(HONEST);
        let (_, buffer) = delivery.expect("a delivery");
        assert_eq!(buffer[..], PAYLOAD);
        application.releaser.consumed(&buffer).expect(HONEST);
        application.releaser.ring_doorbell().expect(HONEST);
        application.releaser.returned(buffer).expect(HONEST);
        daemon.drain_releases(8, |_| {}).expect(HONEST);
    }
}

/// The same by batches. The count is of messages, and none is left over only of a multiple of 64.
pub(crate) fn batches_and_deliveries(count: u64) {
    let created = DaemonSide::create(&Sizes::default());
    let (mut daemon, fds) = created.expect("memory for a segment");
    let mut application = ApplicationSide::map(fds).expect("our own segment");
    let address = ServiceAddress {
        type_: 1000,
        instance: 1,
    };
    let payloads = vec![PAYLOAD; BATCH_MESSAGES_MAX];
    let mut left = count as usize;
    while left > 0 {
        let payloads = &payloads[..left.min(BATCH_MESSAGES_MAX)];
        left -= payloads.len();
        let staged = application.submitter.stage_several(payloads);
        let (staged, batch) = staged.expect("room");
        assert_eq!(batch, payloads.len());
        let submission = Submission {
            tag: 1,
            socket: 7,
            request: Request::Send {
                flags: SendFlags::POSTED | SendFlags::SEVERAL,
                destination: Some(Destination::from(address)),
                payload: staged.place(),
            },
        };
        assert_eq!(application.submitter.push(&submission), Ok(true));

        let request = daemon.pop().expect(HONEST).expect("a request");
        let batch = daemon.payload(&request);
        let meta = Meta {
            socket: 7,
            cost: 100,
            ..Meta::default()
        };
        for message in batch.messages() {
            let mut sent = [0; PAYLOAD.len()];
            message.copy_to(0, &mut sent);
            let delivered = daemon.deliver(&meta, sent.len(), |room| room.copy_from_slice(&sent));
            assert!(delivered.is_ok(), "there is room");
        }
        daemon.complete_posted(request.tag, 0).expect(HONEST);

        let answer = application.receiver.next_completion().expect(HONEST);
        assert_eq!(answer.expect("an answer").tag, 1);
        application.submitter.unstage(staged);
        while let Some((_, buffer)) = application.receiver.next_delivery().expect(HONEST) {
            assert_eq!(buffer[..], PAYLOAD);
            application.releaser.consumed(&buffer).expect(HONEST);
            application.releaser.returned(buffer).expect(HONEST);
        }
        daemon.drain_releases(200, |_| {}).expect(HONEST);
    }
}
