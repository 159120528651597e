package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// answerError is an answer that a check does not expect.
type answerError struct{ says string }

func (e *answerError) Error() string { return e.says }

// dialError is of a connection that was not opened.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// handshakeError is of TLS.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// protocolError is of what answers otherwise than its protocol has it.
type protocolError struct{ err error }

func (e *protocolError) Error() string { return e.err.Error() }
func (e *protocolError) Unwrap() error { return e.err }

// sort says where a probe ended, and why in words.
func sort(says string, err error) (Outcome, string) {
	var answer *answerError
	var shake *handshakeError
	var dial *dialError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var timeout net.Error
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case err == nil:
		return Passes, says
	case errors.As(err, &answer):
		return Unexpected, text
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused, "connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return Unreachable, "no route to host"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return TimedOut, "no answer in time"
	case errors.As(err, &dial): // of our own: not allowed, no file left
		return NotTried, text
	case errors.As(err, &record):
		return OtherWords, "what answers does not speak TLS"
	case errors.As(err, &unknown):
		return BadTLS, "its certificate is signed by an authority that is not known"
	case errors.As(err, &shake) && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET):
		return BadTLS, text
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), strings.Contains(text, closedIdle):
		return Closed, "the connection was closed in place of an answer"
	}
	return OtherWords, text
}

// closedIdle is what net/http says of a connection that was closed before it was used; the
// error has no name.
const closedIdle = "server closed idle connection"
