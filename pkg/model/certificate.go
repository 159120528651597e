package model

import "time"

// Certificate is a certificate, or a bundle of authorities, that lies in files and
// is in use.
type Certificate struct {
	// File is its path, without the folder that all secrets lie in.
	File string `json:"file"`
	// Users are who names it: "admin.tls", "xds.tls", "Listener/edge".
	Users   []string `json:"users"`
	Subject string   `json:"subject,omitempty"`
	// Names are the subject alternative names.
	Names     []string         `json:"names,omitempty"`
	NotBefore time.Time        `json:"notBefore,omitzero"`
	NotAfter  time.Time        `json:"notAfter,omitzero"`
	State     CertificateState `json:"state" doc:"valid, expiring (little of its life is left), expired, or missing (never readable)"`
	// Why says why the files cannot be read now; the last good form is in use.
	Why string `json:"why,omitempty"`
}

// CertificateState says how a certificate does.
type CertificateState string

// The states of a certificate, best first.
const (
	CertificateValid    CertificateState = "valid"
	CertificateExpiring CertificateState = "expiring"
	CertificateEarly    CertificateState = "early" // it is not valid yet
	CertificateExpired  CertificateState = "expired"
	CertificateMissing  CertificateState = "missing"
)
