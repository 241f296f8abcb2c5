package audit_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/audit"
	"sluice/internal/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

func at(t *testing.T) time.Time {
	t.Helper()
	day, err := time.Parse(time.RFC3339Nano, "2026-12-01T11:00:00.0009+01:00")
	if err != nil {
		t.Fatal(err)
	}
	return day
}

func TestARecordIsOneLine(t *testing.T) {
	var b bytes.Buffer
	l := audit.New(&b, nil)
	l.Add(at(t), audit.Record{Event: audit.Start})
	l.Add(at(t), audit.Record{
		Event: audit.Act, Origin: audit.Keeper, Action: "capsules_update", RequestID: "r", Client: "192.0.2.7",
		Principal: "p", Token: "t", Outcome: audit.OK, Status: 200, Code: "C", Count: 3, Detail: "d",
		Target:  audit.Target{Capsule: "c", Memory: "m", Session: "1", Principal: "q", Token: "u"},
		Changed: []string{"owners"}, New: []slog.Attr{slog.Any("owners", []string{"q"}), slog.Int64("time", 5)},
	})
	want := `{"time":"2026-12-01T10:00:00.000Z","event":"start"}
{"time":"2026-12-01T10:00:00.000Z","event":"act","origin":"keeper","action":"capsules_update","request_id":"r",` +
		`"client":"192.0.2.7","principal_id":"p","token_id":"t","target":{"capsule_id":"c","memory_id":"m",` +
		`"session_id":"1","principal_id":"q","token_id":"u"},"outcome":"ok","status":200,"code":"C",` +
		`"changed":["owners"],"new":{"owners":["q"],"time":5},"count":3,"detail":"d"}
`
	if b.String() != want {
		t.Errorf("got  %s\nwant %s", b.String(), want)
	}
	if n, dropped := l.Counts(); n != 2 || dropped != 0 {
		t.Errorf("%d records, %d dropped", n, dropped)
	}
}

// Text that would do something to a terminal, or read as another record, is escaped, and is the
// same text for a reader of JSON.
func TestARecordIsPlainText(t *testing.T) {
	for _, text := range []string{
		"\x1b[2Jgone", "a\nb\r\"}{", "\u202egpj.exe", "\u2066\u2028\x7f\u0085\u009b31m", "\U000e0041 📦", "naïve",
	} {
		var b bytes.Buffer
		audit.New(&b, nil).Add(at(t), audit.Record{Event: audit.Act, Detail: text, Changed: []string{text}})
		line := strings.TrimSuffix(b.String(), "\n")
		if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
			t.Errorf("%q has a raw %q", line, line[i:])
		}
		var got struct {
			Detail  string
			Changed []string
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil || got.Detail != text || got.Changed[0] != text {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestNoLogTakesNothing(t *testing.T) {
	var l *audit.Log
	l.Add(at(t), audit.Record{Event: audit.Start})
	if n, dropped := l.Counts(); n != 0 || dropped != 0 {
		t.Error(n, dropped)
	}
}
