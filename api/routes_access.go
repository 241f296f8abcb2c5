package api

import "net/http"

// accessRoutes is the part of the table that makes, lists and ends who may do what.
func accessRoutes(cursor, limit, capsule param) []route {
	const get, post = http.MethodGet, http.MethodPost
	accessCodes := []Code{CodeNotFound, CodeForbidden}
	grantCodes := append([]Code{CodeQuotaExceeded}, accessCodes...)
	capsule.about = "those of this capsule (those that the caller has made)"
	return []route{
		{
			audit:  auditRefusals,
			method: get, path: "/v1/whoami", auth: member, operation: answering((*Server).whoAmI),
			about: "The caller: its principal, its token, its limits and what it uses of them.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/tokens_create", auth: member, beginsNew: true,
			codes: []Code{CodeForbidden, CodeQuotaExceeded}, operation: exchanging((*Server).createToken),
			about: "Makes a token for the caller; an admin may name another principal. Its secret is shown this once.",
		},
		{
			audit:  auditAdmins,
			method: get, path: "/v1/tokens_list", longAnswer: true, auth: member, codes: []Code{CodeForbidden},
			operation: answering((*Server).listTokens), query: []param{
				{name: "principal_id", about: "whose tokens (the caller's); another's for an admin", kind: "string"},
				cursor, limit,
			},
			about: "The caller's tokens, without their secrets, the oldest first.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/tokens_revoke", auth: member, codes: accessCodes,
			operation: commanding((*Server).revokeToken),
			about:     "Ends a token of the caller, or any for an admin. What runs with it ends within a second.",
		},

		{
			audit:  auditAlways,
			method: post, path: "/v1/principals_create", auth: admin, beginsNew: true,
			operation: exchanging((*Server).createPrincipal), about: "Makes a principal without a role.",
		},
		{
			audit:  auditAlways,
			method: get, path: "/v1/principals_list", longAnswer: true, auth: admin, query: []param{cursor, limit},
			operation: answering((*Server).listPrincipals), about: "All principals, the oldest first.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/principals_update", auth: admin, codes: []Code{CodeNotFound},
			operation: exchanging((*Server).updatePrincipal),
			about:     "Changes what is given: name, admin right, bounds of open sessions.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/principals_delete", auth: admin, codes: []Code{CodeNotFound},
			operation: commanding((*Server).deletePrincipal),
			about:     "Ends a principal with its tokens, roles and open sessions. Its memories stay in their capsules.",
		},

		{
			audit:  auditAlways,
			method: get, path: "/v1/sessions_list", longAnswer: true, auth: admin,
			operation: answering((*Server).sessionsList),
			query: []param{
				{name: "owner", about: "only this principal's", kind: "string"},
				{
					name: "state", about: "only these", kind: "string",
					enum: []any{"open", "sealed", "finished", "aborted", "expired"},
				},
				cursor, limit,
			},
			about: "Anybody's sessions.",
		},
		{
			audit:  auditAlways,
			method: get, path: "/v1/sessions_stats", auth: admin, operation: answering((*Server).sessionsStats),
			about: "The engine's figures.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/sessions_clear_all", auth: admin,
			operation: exchanging((*Server).sessionsClearAll), about: "Aborts every open session.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/sessions_cleanup_expired", auth: admin,
			operation: exchanging((*Server).sessionsCleanup), about: "Ends what is past its time to live, now.",
		},

		{
			audit:  auditAlways,
			method: post, path: "/v1/upload_tickets_create", auth: member, beginsNew: true, codes: grantCodes,
			operation: exchanging((*Server).createTicket),
			about:     "Makes a ticket, with which somebody without an account may upload. Its secret is shown this once.",
		},
		{
			audit:  auditAdmins,
			method: get, path: "/v1/upload_tickets_list", longAnswer: true, auth: member, codes: accessCodes,
			operation: answering((*Server).listTickets), query: []param{capsule, cursor, limit},
			about: "Tickets, without their secrets, the oldest first.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/upload_tickets_revoke", auth: member, codes: accessCodes,
			operation: commanding((*Server).revokeTicket),
			about:     "Ends a ticket, and aborts what is under way with it.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/read_links_create", auth: member, beginsNew: true, codes: grantCodes,
			operation: exchanging((*Server).createLink),
			about:     "Makes a link with which anybody may read one memory. It is shown this once.",
		},
		{
			audit:  auditAdmins,
			method: get, path: "/v1/read_links_list", longAnswer: true, auth: member, codes: accessCodes,
			operation: answering((*Server).listLinks), query: []param{capsule, cursor, limit},
			about: "Read links, without their secrets, the oldest first.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/read_links_revoke", auth: member, codes: accessCodes,
			operation: commanding((*Server).revokeLink), about: "Ends a read link.",
		},
	}
}
