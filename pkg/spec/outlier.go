package spec

// OutlierDetection ejects endpoints by what requests see. A detector with 0 is
// off; those that are on always enforce.
type OutlierDetection struct {
	Consecutive5xx     uint32             `json:"consecutive5xx,omitempty" default:"5" doc:"5xx answers in a row (connection failures count) that eject; 0 turns it off."`
	ConsecutiveGateway uint32             `json:"consecutiveGatewayFailures,omitempty" doc:"502, 503 and 504 in a row that eject; 0 is off."`
	ConsecutiveLocal   uint32             `json:"consecutiveLocalOriginFailures,omitempty" doc:"Timeouts, refused and reset connections in a row that eject; needs splitLocalOrigin. 0 is off."`
	SplitLocalOrigin   bool               `json:"splitLocalOrigin,omitempty" doc:"Count failures of the connection apart from answers."`
	SuccessRate        *SuccessRate       `json:"successRate,omitempty" doc:"Ejects endpoints whose success rate is far below the others'."`
	FailurePercentage  *FailurePercentage `json:"failurePercentage,omitempty" doc:"Ejects endpoints above a share of failures."`
	Interval           Duration           `json:"interval,omitempty" default:"10s" minimum:"1ms" doc:"Time between sweeps that eject by rate and bring back."`
	BaseEjection       Duration           `json:"baseEjection,omitempty" default:"30s" minimum:"1ms" doc:"First ejection; the n-th one lasts n times as long."`
	MaxEjection        Duration           `json:"maxEjection,omitempty" default:"300s" minimum:"1ms" doc:"Longest ejection."`
	MaxEjectionJitter  Duration           `json:"maxEjectionJitter,omitempty" doc:"Random time up to this added to an ejection."`
	MaxEjectionPercent uint32             `json:"maxEjectionPercent,omitempty" default:"50" maximum:"100" doc:"Most of the endpoints that may be out at once, rounded down: 50 spares an only endpoint."`
}

// SuccessRate compares endpoints with each other.
type SuccessRate struct {
	MinHosts      uint32  `json:"minHosts,omitempty" default:"5" minimum:"1" doc:"Fewest endpoints with enough requests."`
	RequestVolume uint32  `json:"requestVolume,omitempty" default:"100" minimum:"1" doc:"Requests in an interval for an endpoint to count."`
	StdevFactor   float64 `json:"stdevFactor,omitempty" default:"1.9" minimum:"0.001" maximum:"100" doc:"Standard deviations below the mean that eject."`
}

// FailurePercentage is a fixed limit.
type FailurePercentage struct {
	Threshold     uint32 `json:"threshold,omitempty" default:"85" minimum:"1" maximum:"100" doc:"Percent of failures that ejects."`
	MinHosts      uint32 `json:"minHosts,omitempty" default:"5" minimum:"1" doc:"Fewest endpoints with enough requests."`
	RequestVolume uint32 `json:"requestVolume,omitempty" default:"50" minimum:"1" doc:"Requests in an interval for an endpoint to count."`
}

func (o *OutlierDetection) check(c *checker, path string) {
	if o.ConsecutiveLocal > 0 && !o.SplitLocalOrigin {
		c.faultf(path+".consecutiveLocalOriginFailures", "counts nothing without splitLocalOrigin: true")
	}
	if o.BaseEjection > o.MaxEjection {
		c.faultf(path+".baseEjection", "%s is longer than maxEjection %s", o.BaseEjection, o.MaxEjection)
	}
	if o.Consecutive5xx == 0 && o.ConsecutiveGateway == 0 && o.ConsecutiveLocal == 0 && o.SuccessRate == nil && o.FailurePercentage == nil {
		c.faultf(path, "every detector is off; leave outlierDetection out")
	}
}
