// Package fleet keeps what every proxy sees: how many endpoints of an upstream its
// balancer would use, whether it panics, what failed and why. It is bounded, and
// holds no more than the newest of each.
//
// Who writes: xds/server says who is connected (Joined, Left); xds/telemetry brings
// reports (Open, Add, Close) and failed requests (Failed). Who reads: pkg/health
// joins the Views of an upstream with what its source says. What a proxy was sent
// is not kept here; xds/delivery owns it.
//
// Decisions:
//   - A report is a whole picture: what it does not name is gone. Envoy sends no
//     last word for an endpoint that left.
//   - Counters come as totals since the proxy's start, so that what was counted
//     while we were away is in the next report. The first total of a proxy that is
//     older than our process is where we begin to count. A total that went back is
//     a restart.
//   - A report counts only for the node whose stream has the same credential: the
//     names in its client certificate, and the key that it said when it connected,
//     which nobody else hears. Where streams need no certificate the key alone does,
//     over loopback or TLS. Without one a report is unverified: that it came is shown,
//     what it says is not looked at.
//   - A view is as old as its report. After three intervals without one the proxy
//     is silent, and its view is no evidence any more.
//   - Trends are of an upstream over the whole fleet, in minutes and hours; what
//     came in after a gap stands where it came in.
//
// Bytes: a proxy's view of an upstream takes about 300, of an endpoint 32; trends
// and failures of an upstream with traffic about 20 kB. BenchmarkMemory prints them.
package fleet
