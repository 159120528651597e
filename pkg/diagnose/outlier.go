package diagnose

import "fmt"

// outlierChecks are of outlier detection.
var outlierChecks = []check{{O1, ejected}, {O2, small}, {O3, mayNotEject}}

// detectors by the name of their counters.
var detectors = []string{"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure", "success_rate", "local_origin_success_rate", "failure_percentage", "local_origin_failure_percentage"}

func ejected(c *cluster) (*claim, string) {
	out := c.with("failed_outlier_check")
	if len(out) == 0 {
		return nil, "nobody is ejected"
	}
	x := &claim{
		Certain.unless(c.minor(out)), fmt.Sprintf("%s are ejected", c.out(out)),
		[]string{flagged("failed_outlier_check", out)},
		"see why they answered so: the counts of 5xx, and their logs",
	}
	for _, d := range detectors {
		if n := c.stat("outlier_detection.ejections_enforced_" + d); n > 0 {
			x.evidence = append(x.evidence, fmt.Sprintf("/stats: %d ejections by %s", n, d))
		}
	}
	return x, ""
}

// small clusters that have more to eject than they can spare.
const smallCluster = 3

func small(c *cluster) (*claim, string) {
	out := c.with("failed_outlier_check")
	if len(out) == 0 || len(c.hosts) > smallCluster {
		return nil, ""
	}
	may := uint64(10) // Envoy's default
	if o := c.config.Outlier; o != nil && o.MaxEjected != nil {
		may = *o.MaxEjected
	}
	return &claim{
		Possible, fmt.Sprintf("one ejection takes a share of %d %%, and %d %% may be ejected", 100/len(c.hosts), may),
		[]string{fmt.Sprintf("/clusters: %d hosts", len(c.hosts)), fmt.Sprintf("/config_dump: max_ejection_percent %d", may)},
		"have more hosts, or leave outlier detection to larger clusters",
	}, ""
}

func mayNotEject(c *cluster) (*claim, string) {
	over := c.growth("outlier_detection.ejections_overflow")
	if over.n == 0 {
		return nil, "no ejection was held back"
	}
	s := Possible
	if over.now {
		s = Likely
	}
	return &claim{s, "outlier detection wants hosts out, and may not eject more", []string{over.String()}, "raise max_ejection_percent: below ten hosts the default of 10 % ejects nobody"}, ""
}
