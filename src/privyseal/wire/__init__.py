# SPDX-License-Identifier: Apache-2.0
"""The only words that hub, agent and client share: request statements, the HTTP API, the agent link."""
