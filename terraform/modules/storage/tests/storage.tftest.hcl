# `terraform test` here: what is refused, and what must hold. No AWS is asked.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name               = "distill-test"
  collector_role_arn = "arn:aws:iam::123456789012:role/distill-test-collector"
  model_lock         = { mode = "GOVERNANCE", days = 1 }
}

run "refuses_a_long_name" {
  command = plan

  variables {
    name = "a-name-that-no-bucket-could-carry"
  }

  expect_failures = [var.name]
}

run "refuses_a_wildcard_for_the_collector" {
  command = plan

  variables {
    collector_role_arn = "arn:aws:iam::123456789012:role/*"
  }

  expect_failures = [var.collector_role_arn]
}

run "refuses_records_that_can_be_replaced" {
  command = plan

  variables {
    create_only = ["registry/*"]
  }

  expect_failures = [var.create_only]
}

run "refuses_short_access_logs" {
  command = plan

  variables {
    log_retention_days = 7
  }

  expect_failures = [var.log_retention_days]
}

run "refuses_no_images" {
  command = plan

  variables {
    images = []
  }

  expect_failures = [var.images]
}

run "names_are_of_account_and_region" {
  command = plan

  assert {
    condition     = local.names.workspace == "distill-test-workspace-123456789012-eu-central-1"
    error_message = "bucket names are shared by all of AWS"
  }
}
