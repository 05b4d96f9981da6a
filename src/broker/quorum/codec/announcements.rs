//! Announcements and their answers as bytes; a text is `length u16` and its bytes.

use super::super::announce::{Announced, Announcement, Standing};
use super::super::voter_set::{Voter, VoterEndpoint};
use super::{CodecError, NOBODY, Reader};
use crate::broker::Address;
use bytes::{BufMut, BytesMut};
use ottla_protocol::{BrokerId, LeaderEpoch};

/// Listeners that a node may have; more bytes than that are no announcement.
const ENDPOINTS_MAX: usize = u8::MAX as usize;

fn put_text(out: &mut BytesMut, text: &str) {
    // Names and hosts of listeners, which are short: the configuration's reader has taken them.
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    out.put_slice(bytes);
}

fn put_address(out: &mut BytesMut, (host, port): &Address) {
    put_text(out, host);
    out.put_u16(*port);
}

pub(super) fn put_announcement(out: &mut BytesMut, announcement: &Announcement) {
    let Announcement { voter, voters_max } = announcement;
    out.put_i32(voter.id.0);
    out.put_slice(voter.directory_id.as_bytes());
    out.put_i16(voter.kraft_versions.0);
    out.put_i16(voter.kraft_versions.1);
    let endpoints = &voter.endpoints[..voter.endpoints.len().min(ENDPOINTS_MAX)];
    out.put_u8(u8::try_from(endpoints.len()).unwrap_or(u8::MAX));
    for endpoint in endpoints {
        put_text(out, &endpoint.name);
        put_address(out, &endpoint.address);
    }
    out.put_u8(u8::from(voters_max.is_some()));
    if let Some(max) = voters_max {
        out.put_u32(*max);
    }
}

pub(super) fn put_announced(out: &mut BytesMut, answer: &Announced) {
    out.put_u8(match answer.standing {
        Standing::Unknown => 0,
        Standing::Voter => 1,
        Standing::Learner => 2,
        Standing::Replaced(_) => 3,
        Standing::Fixed => 4,
    });
    if let Standing::Replaced(directory_id) = answer.standing {
        out.put_slice(directory_id.as_bytes());
    }
    out.put_i32(answer.epoch.0);
    match &answer.leader {
        None => out.put_i32(NOBODY),
        Some((id, address)) => {
            out.put_i32(id.0);
            put_address(out, address);
        }
    }
}

impl Reader {
    fn text(&mut self) -> Result<String, CodecError> {
        let len = u16::from_be_bytes(self.array()?);
        let bytes = self.take(usize::from(len))?;
        String::from_utf8(bytes.to_vec()).map_err(|error| CodecError(error.to_string()))
    }

    fn address(&mut self) -> Result<Address, CodecError> {
        Ok((self.text()?, u16::from_be_bytes(self.array()?)))
    }

    pub(super) fn announcement(&mut self) -> Result<Announcement, CodecError> {
        let id = BrokerId(self.i32()?);
        if id.0 < 0 {
            return Err(CodecError(format!("node {id}")));
        }
        let directory_id = self.uuid()?;
        let kraft_versions = (i16::from_be_bytes(self.array()?), i16::from_be_bytes(self.array()?));
        let mut endpoints = Vec::new();
        for _ in 0..self.u8()? {
            endpoints.push(VoterEndpoint { name: self.text()?, address: self.address()? });
        }
        let voters_max = if self.flag()? { Some(self.u32()?) } else { None };
        let voter = Voter { id, directory_id, endpoints, kraft_versions };
        Ok(Announcement { voter, voters_max })
    }

    pub(super) fn announced(&mut self) -> Result<Announced, CodecError> {
        let standing = match self.u8()? {
            0 => Standing::Unknown,
            1 => Standing::Voter,
            2 => Standing::Learner,
            3 => Standing::Replaced(self.uuid()?),
            4 => Standing::Fixed,
            other => return Err(CodecError(format!("standing {other}"))),
        };
        let epoch = LeaderEpoch(self.i32()?);
        let leader = match self.i32()? {
            id if id < 0 => None,
            id => Some((BrokerId(id), self.address()?)),
        };
        Ok(Announced { standing, epoch, leader })
    }
}
