package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a terminal of some size and returns its two ends.
func terminal(t *testing.T, rows uint16) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	fd := int(ours.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: 80})
	}
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Close() })
	return ours, theirs
}

// painted is what a terminal is sent for one screen.
func painted(t *testing.T, rows uint16, text string) string {
	t.Helper()
	ours, theirs := terminal(t, rows)
	paint(theirs, text, true)
	var got strings.Builder
	end := time.Now().Add(5 * time.Second)
	for !strings.Contains(got.String(), "\x1b[J") {
		buf := make([]byte, 4096)
		n, err := ours.Read(buf)
		if err != nil || time.Now().After(end) {
			t.Fatalf("%v after %q", err, got.String())
		}
		got.Write(buf[:n])
	}
	return got.String()
}

// On a terminal a screen is drawn over the one before it, in colour; what the
// window has no line for is counted, and the cursor never leaves the window.
func TestPaintTerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	text := "UPSTREAM  STATE\na  critical \nb  healthy\nc  healthy\nd  healthy\n"
	whole := painted(t, 24, text)
	if !strings.HasPrefix(whole, "\x1b[H") || strings.Count(whole, "\n") != 6 || !strings.Contains(whole, "a \x1b[31m critical \x1b[0m\x1b[K") {
		t.Errorf("a window that is high enough: %q", whole)
	}
	low := painted(t, 5, text)
	if strings.Count(low, "\n") != 4 || !strings.Contains(low, "… 3 more lines") || strings.Contains(low, "b  healthy") {
		t.Errorf("a window of five lines: %q", low)
	}
	t.Setenv("NO_COLOR", "1")
	if plain := painted(t, 24, text); strings.Contains(plain, "\x1b[31m") {
		t.Errorf("coloured though NO_COLOR is set: %q", plain)
	}
}
