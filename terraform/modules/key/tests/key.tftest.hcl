# `terraform test` here: what is refused, and what must hold. No AWS is asked.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name        = "distill-test/key"
  description = "test"
}

run "refuses_an_upper_case_alias" {
  command = plan

  variables {
    name = "Distill"
  }

  expect_failures = [var.name]
}

run "refuses_too_short_a_window" {
  command = plan

  variables {
    deletion_window_days = 3
  }

  expect_failures = [var.deletion_window_days]
}
