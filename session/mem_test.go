package session_test

import (
	"testing"

	"sluice/session"
	"sluice/session/sessiontest"
)

func mem(*testing.T) session.Store { return session.NewMem() }

// repeating is a Store whose answers get lost.
func repeating(t *testing.T) session.Store { return sessiontest.Repeating(mem(t)) }

func TestMemIsAStore(t *testing.T) { sessiontest.TestStore(t, mem) }

// histories are many: in memory they cost little.
func histories(t *testing.T, open func(t *testing.T) session.Store, services int) {
	for range 10 {
		sessiontest.TestModel(t, open, services)
	}
}

func TestAnyHistory(t *testing.T)                       { histories(t, mem, 1) }
func TestAnyHistoryOfTwoServices(t *testing.T)          { histories(t, mem, 2) }
func TestAnyHistoryOverLostAnswers(t *testing.T)        { histories(t, repeating, 1) }
func TestAnyHistoryOfThreeOverLostAnswers(t *testing.T) { histories(t, repeating, 3) }
