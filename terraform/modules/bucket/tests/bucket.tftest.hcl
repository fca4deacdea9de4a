# `terraform test` here: what is refused, and what must hold. No AWS is asked.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name        = "distill-test-models"
  key_arn     = "arn:aws:kms:eu-central-1:123456789012:key/models"
  logs_bucket = "distill-test-logs"
}

run "refuses_a_dotted_name" {
  command = plan

  variables {
    name = "a.b.c"
  }

  expect_failures = [var.name]
}

run "refuses_an_unknown_lock" {
  command = plan

  variables {
    lock = { mode = "SOFT", days = 1 }
  }

  expect_failures = [var.lock]
}

run "refuses_a_lock_of_no_days" {
  command = plan

  variables {
    lock = { mode = "GOVERNANCE", days = 0 }
  }

  expect_failures = [var.lock]
}

run "refuses_to_abort_live_uploads" {
  command = plan

  variables {
    abort_uploads_days = 1
  }

  expect_failures = [var.abort_uploads_days]
}

run "refuses_to_forget_within_the_grace_period" {
  command = plan

  variables {
    noncurrent_version_days = 7
  }

  expect_failures = [var.noncurrent_version_days]
}

run "keeps_every_version_by_default" {
  command = plan

  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_lifecycle_configuration.this.rule :
      length(rule.expiration) == 0 && length(rule.noncurrent_version_expiration) == 0 && length(rule.transition) == 0
    ])
    error_message = "nothing expires"
  }
}

run "forgets_old_versions_if_told_to_and_nothing_else" {
  command = plan

  variables {
    noncurrent_version_days = 30
  }

  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_lifecycle_configuration.this.rule :
      length(rule.expiration) == 0 && rule.noncurrent_version_expiration[0].noncurrent_days == 30
    ])
    error_message = "noncurrent versions alone expire"
  }
}

run "locks_if_told_to" {
  command = plan

  variables {
    lock = { mode = "COMPLIANCE", days = 90 }
  }

  assert {
    condition     = aws_s3_bucket.this.object_lock_enabled && aws_s3_bucket_object_lock_configuration.this[0].rule[0].default_retention[0].mode == "COMPLIANCE"
    error_message = "locked as told"
  }
}
