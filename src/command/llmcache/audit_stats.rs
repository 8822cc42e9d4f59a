//! The MAXERROR fields of `LLMCACHE.STATS`.

use crate::ffi::Reply;
use llmcache_core::cache::Cache;
use llmcache_core::cache::maxerror::{Audit, Bets, MaxError, Point};

/// How many fields there are.
pub const FIELDS: usize = 22;

/// Writes the fields; of a cache without MAXERROR those that it has not are null or 0.
pub fn write(reply: Reply<'_>, cache: &Cache) {
    let (promise, audit) = (cache.settings.max_error, cache.audit());
    let in_use = audit.and_then(|audit| audit.evidence().in_use());
    let counts = audit.map(|audit| audit.counts).unwrap_or_default();
    let labels = audit.and_then(|audit| audit.evidence().points().last().copied());
    let shown = |point: Option<Point>| {
        share_or_null(reply, point.map(|point| point.threshold.as_f64()));
    };
    reply.text("maxerror");
    share_or_null(reply, Some(f64::from(promise.max_error_ppm) / 1e6));
    reply.text("confidence");
    share_or_null(reply, Some(f64::from(promise.confidence_ppm) / 1e6));
    reply.text("maxerror_state").text(audit.map_or("off", |audit| audit.standing().as_str()));
    reply.text("warm_up_left").count(audit.map_or(0, Audit::warm_up_left));
    reply.text("threshold_in_use");
    shown(in_use);
    reply.text("verified").int(i64::from(in_use.is_some()));
    reply.text("epoch").count(audit.map_or(0, |audit| audit.evidence().epoch().into()));
    reply.text("near").count(counts.near);
    reply.text("audits").count(counts.audits);
    reply.text("labels").count(labels.map_or(0, |point| point.labels.into()));
    reply.text("labels_wrong").count(labels.map_or(0, |point| point.wrong.into()));
    reply.text("labels_ignored").count(counts.ignored);
    reply.text("reported_share");
    let reported = counts.reports as f64 / counts.audits.max(1) as f64;
    share_or_null(reply, (counts.audits > 0).then_some(reported));
    reply.text("false_hits_estimate");
    let labelled = in_use.filter(|point| point.labels > 0);
    let estimate = labelled.map(|point| f64::from(point.wrong) / f64::from(point.labels));
    share_or_null(reply, estimate);
    reply.text("false_hits_upper");
    share_or_null(reply, labelled.and_then(|point| upper_share(point, promise)));
    let next = audit.and_then(|audit| Some((audit.evidence().next()?, audit)));
    reply.text("next_threshold");
    shown(next.map(|(point, _)| point));
    reply.text("labels_to_next");
    match next {
        Some((point, audit)) => reply.count(audit.bets().labels_to_win(point.labels, point.wrong)),
        None => reply.null(),
    };
    reply.text("alarms").count(counts.alarms);
    reply.text("opinions_right").count(counts.opinions_right);
    reply.text("opinions_wrong").count(counts.opinions_wrong);
    reply.text("near_misses").count(cache.near_misses.len() as u64);
    write_curve(reply, audit);
}

/// Threshold, labels, wrong ones and whether it is proven, of each threshold at which something is.
fn write_curve(reply: Reply<'_>, audit: Option<&Audit>) {
    let points = audit.map_or(&[][..], |audit| audit.evidence().points());
    let points: Vec<&Point> = points.iter().filter(|point| point.labels > 0).collect();
    reply.text("curve").array(points.len());
    for point in points {
        reply.array(4).double(point.threshold.as_f64());
        reply.count(point.labels.into()).count(point.wrong.into());
        reply.int(i64::from(point.is_proven));
    }
}

fn upper_share(point: Point, promise: MaxError) -> Option<f64> {
    let ppm = Bets::upper_share_ppm(point.labels, point.wrong, promise.confidence_ppm)?;
    Some(f64::from(ppm) / 1e6)
}

fn share_or_null(reply: Reply<'_>, share: Option<f64>) {
    match share {
        Some(share) => reply.double((share * 1e6).round() / 1e6),
        None => reply.null(),
    };
}
